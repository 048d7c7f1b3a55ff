"""Attention in pieces against the plain form: values and gradients of everything that may be trained."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.models import blockwise
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.layers import MASKED, Bias, RelativeBias, behind_prefix
from prompt_tuning.models.t5 import T5, T5Config
from tests.models.test_fused import drawn

WIDTH = 4


@pytest.fixture(autouse=True)
def on_a_cpu() -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("attention in pieces is for CPUs")


def plain(q: jax.Array, k: jax.Array, v: jax.Array, bias: Bias, *, scale: float, cap: float | None) -> jax.Array:
    groups = q.shape[1] // k.shape[1]
    k, v = (jnp.repeat(x, groups, axis=1) for x in (k, v))
    scores = jnp.einsum("bhtk,bhsk->bhts", q, k) * scale
    scores = scores if cap is None else cap * jnp.tanh(scores / cap)
    return jnp.einsum("bhts,bhsk->bhtk", jax.nn.softmax(scores + bias.whole(), axis=-1), v)


def mask_of(kind: str, batch: int, length: int, keys: int, *, seed: int) -> np.ndarray:
    """[B, 1, 1 or T, S]; every query sees something: the first keys, of a prefix, or itself."""
    rng = np.random.default_rng(seed)
    t, s = np.arange(length)[:, None], np.arange(keys)[None] - (keys - length)
    segments = np.sort(rng.integers(1, 4, (batch, length)), axis=1)
    before = np.zeros((batch, max(keys - length, 0)), int)
    own = np.concatenate([before, segments], axis=1)[:, -keys:]
    seen = {
        "padding": np.arange(keys)[None, None] < rng.integers(1, keys + 1, (batch, 1, 1)),
        "causal": np.broadcast_to(s <= t, (batch, length, keys)),
        "prefix-LM": np.broadcast_to((s <= t) | (s < length // 2), (batch, length, keys)),
        "window": np.broadcast_to((s <= t) & (s > t - 3), (batch, length, keys)),
        "packed": (segments[:, :, None] == own[:, None]) | (own == 0)[:, None],
    }[kind]
    return np.where(seen, 0.0, MASKED).astype(np.float32)[:, None]


def check(
    heads: tuple[int, int],
    kind: str,
    *,
    batch: int,
    length: int,
    prefix: int,
    relative: bool,
    cap: float | None,
    queries: int,
    groups: int,
    seed: int,
) -> None:
    h, j = heads
    keys = length + prefix
    q = drawn(batch, h, length, WIDTH, seed=seed)
    k, v = (drawn(batch, j, keys, WIDTH, seed=seed + n) for n in (1, 2))
    weights = drawn(batch, h, length, WIDTH, seed=seed + 3)
    distances = drawn(h, 2 * length - 1, seed=seed + 4) if relative else None
    places = np.arange(length)[None] - np.arange(length)[:, None] + length - 1
    mask = jnp.asarray(mask_of(kind, batch, length, keys, seed=seed))

    def sum_of(form: Any, q: Any, k: Any, v: Any, distances: Any) -> tuple[jax.Array, jax.Array]:
        whole = None
        if distances is not None:
            # A number that is none in the whole bias: attention in pieces must not read it.
            whole = jnp.pad(distances[:, places], [(0, 0), (0, 0), (prefix, 0)])[None] if form is plain else jnp.array(jnp.nan)
        y = form(q, k, v, Bias(whole, mask, distances), scale=0.7, cap=cap)
        return jnp.sum(y * weights), y

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "_CAUSAL_QUERIES", queries)
        patch.setattr(blockwise, "_ROW_GROUPS", groups)
        patch.setattr(blockwise, "_PIECE_BYTES", 4 * h * keys * queries)
        pieces = functools.partial(blockwise.attend, causal=kind in ("causal", "window"))
        forms = [jax.jit(jax.value_and_grad(functools.partial(sum_of, form), (0, 1, 2, 3), has_aux=True)) for form in (pieces, plain)]
        ((_, y), gradients), ((_, plain_y), plain_gradients) = (form(q, k, v, distances) for form in forms)
    # float32 sums of at most sixteen terms, in another order.
    np.testing.assert_allclose(y, plain_y, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(plain_gradients), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize(
    ("heads", "kind", "prefix", "relative", "cap"),
    [((2, 2), "padding", 0, True, None), ((4, 2), "causal", 2, False, None), ((3, 1), "prefix-LM", 0, False, 2.0)],
)
def test_pieces_give_the_values_and_gradients_of_the_plain_form(
    heads: tuple[int, int], kind: str, prefix: int, relative: bool, cap: float | None
) -> None:
    check(heads, kind, batch=3, length=9, prefix=prefix, relative=relative, cap=cap, queries=4, groups=2, seed=0)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]),
    kind=st.sampled_from(["padding", "causal", "prefix-LM", "window", "packed"]),
    batch=st.integers(1, 6),
    length=st.integers(1, 13),
    prefix=st.integers(0, 3),
    relative=st.booleans(),
    cap=st.sampled_from([None, 2.0]),
    queries=st.integers(1, 7),
    groups=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_pieces_give_the_values_and_gradients_of_the_plain_form(heads: tuple[int, int], kind: str, **sizes: Any) -> None:
    check(heads, kind, **sizes)


def test_the_table_of_a_relative_bias_and_a_prefix_get_their_gradients() -> None:
    rngs = nnx.Rngs(0)
    table = RelativeBias(rngs, num_buckets=8, max_distance=16, num_heads=2, bidirectional=True, std=0.3, dtype="float32")
    graphdef, state = nnx.split(table)
    q, k, v = (jnp.asarray(drawn(3, 2, 9, WIDTH, seed=n)) for n in range(3))
    prefix = jnp.asarray(drawn(2, 2, 3, WIDTH, seed=5))
    mask = jnp.asarray(mask_of("padding", 3, 9, 9, seed=1))

    def sum_of(form: Any, state: Any, prefix: jax.Array) -> jax.Array:
        keys_values, bias = behind_prefix(lambda: prefix, (k, v), nnx.merge(graphdef, state).among(9, mask))
        return jnp.sum(form(q, *keys_values, bias, scale=1.0, cap=None) ** 2)

    ours, theirs = (jax.jit(jax.grad(functools.partial(sum_of, form), (0, 1)))(state, prefix) for form in (blockwise.attend, plain))
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.abs(other).max() > 1e-3
        np.testing.assert_allclose(one, other, atol=1e-5)


SIZES = {"d_model": 16, "d_ff": 24, "num_heads": 4, "vocab_size": 40, "unroll_layers": False}
LLAMA = DecoderConfig(**SIZES, num_layers=2, num_kv_heads=2, head_width=4)
CONFIGS = {
    "T5": T5Config(**SIZES, d_kv=4, num_encoder_layers=2, num_decoder_layers=2),
    "UMT5": T5Config(**SIZES, d_kv=4, num_encoder_layers=2, num_decoder_layers=2, per_layer_bias=True),
    "grouped": LLAMA,
    "capped window": dataclasses.replace(LLAMA, attention_cap=3.0, layer_kinds="LG", window=3),
    "prefix-LM": dataclasses.replace(LLAMA, mask="prefix"),
    "latent": dataclasses.replace(LLAMA, num_kv_heads=4, latent_width=8, rope_width=2, value_width=6),
}


FAST = (("T5", "float32"), ("grouped", "float32"))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(name, dtype, marks=() if (name, dtype) in FAST else pytest.mark.slow)
        for name in CONFIGS
        for dtype in ("float32", "bfloat16")
    ],
)
def test_a_model_in_pieces_has_the_logits_and_gradients_of_the_plain_one(monkeypatch: pytest.MonkeyPatch, name: str, dtype: Any) -> None:
    config = dataclasses.replace(CONFIGS[name], dtype=dtype)
    model = T5(config, nnx.Rngs(0)) if isinstance(config, T5Config) else Decoder(config, nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    rng = np.random.default_rng(0)
    # Two rows of two packed segments and one that is padded.
    segments = np.array([[1] * 5 + [2] * 6, [1] * 3 + [2] * 8, [1] * 7 + [0] * 4])
    batch = {f"{side}_segment_ids": jnp.asarray(segments) for side in ("encoder", "decoder")}
    places = np.array([[*range(5), *range(6)], [*range(3), *range(8)], [*range(7), *range(4)]])
    batch |= {f"{side}_positions": jnp.asarray(places) for side in ("encoder", "decoder")}
    batch |= {f"{side}_input_tokens": jnp.asarray(rng.integers(3, 40, segments.shape)) for side in ("encoder", "decoder")}
    counted = jnp.asarray(segments > 0)[..., None]

    def loss(state: Any) -> tuple[jax.Array, jax.Array]:
        logits = nnx.merge(graphdef, state)(batch) * counted
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), logits

    plain_form = jax.jit(jax.value_and_grad(loss, has_aux=True))(state)
    monkeypatch.setattr(blockwise, "_LEAST_BYTES", 0)
    monkeypatch.setattr(blockwise, "_LEAST_CAUSAL_BYTES", 0)
    monkeypatch.setattr(blockwise, "_CAUSAL_QUERIES", 4)
    served = []
    attend = blockwise.attend
    monkeypatch.setattr(blockwise, "attend", lambda *args, **kwargs: served.append(kwargs) or attend(*args, **kwargs))
    in_pieces = jax.jit(jax.value_and_grad(lambda state: loss(state), has_aux=True))(state)
    assert served
    # bfloat16 keeps 8 bits, and both forms round after each of the two layers' operations.
    limit = 1e-5 if dtype == "float32" else 3e-2
    for ours, theirs in zip(jax.tree.leaves(in_pieces), jax.tree.leaves(plain_form), strict=True):
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, atol=limit * max(1.0, float(np.abs(theirs).max())))


@pytest.mark.parametrize("layers", [pytest.param("scanned", marks=pytest.mark.slow), "unrolled"])
def test_no_program_in_pieces_holds_the_whole_relative_bias(monkeypatch: pytest.MonkeyPatch, layers: str) -> None:
    """Not even where its table is trained: XLA drops what makes it."""
    heads, length = 5, 29
    config = T5Config(
        vocab_size=40, d_model=8, d_ff=8, num_heads=heads, d_kv=2, num_encoder_layers=2, num_decoder_layers=1,
        unroll_layers=layers == "unrolled",
    )  # fmt: skip
    graphdef, state = nnx.split(T5(config, nnx.Rngs(0)))

    def held() -> set[str]:
        def loss(state: Any) -> jax.Array:
            ones = jnp.ones((4, length), jnp.int32)
            return jnp.mean(nnx.merge(graphdef, state).encode(ones, segment_ids_BS=ones) ** 2)

        program = jax.jit(jax.grad(loss)).lower(state).compile().as_text()
        return set(re.findall(r"f32\[(?:1,)?(?:5,1|1,5|5),29,29\]", program))

    assert held()
    monkeypatch.setattr(blockwise, "_LEAST_BYTES", 0)
    monkeypatch.setattr(blockwise, "_PIECE_BYTES", 4 * heads * length * 10)
    assert not held()


@pytest.mark.parametrize(
    ("length", "causal", "in_pieces"), [(32, True, False), (228, True, True), (228, False, False), (1024, False, True)]
)
def test_many_scores_without_dropout_are_computed_in_pieces(length: int, causal: bool, in_pieces: bool) -> None:
    q: Any = jax.ShapeDtypeStruct((16, 6, length, 64), jnp.float32)
    assert blockwise.serves(q, q, dropout=False, causal=causal) == in_pieces
    assert not blockwise.serves(q, q, dropout=True, causal=causal)


def test_the_backward_pass_keeps_no_scores() -> None:
    q, k, v = (jnp.zeros((4, 2, 64, 8)) for _ in range(3))
    _, backward = jax.vjp(lambda q, k, v: blockwise.attend(q, k, v, Bias(None, jnp.zeros((1, 1, 1, 64))), causal=True), q, k, v)
    largest = max(leaf.size for leaf in jax.tree.leaves(backward))
    assert largest == q.size < 4 * 2 * 64 * 64
