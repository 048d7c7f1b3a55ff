"""Attention in one kernel: the call against a NumPy attention anywhere, the kernel itself against the plain form where there is a GPU."""

import collections
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.models import fused
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.layers import MASKED, Remat
from prompt_tuning.models.t5 import T5, T5Config
from prompt_tuning.planning.counting import operations
from tests.test_training_step import equations

on_gpu = pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def by_numpy(q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray, scale: float) -> np.ndarray:
    groups = q.shape[1] // k.shape[1]
    k, v = (np.repeat(x.astype(np.float64), groups, axis=1) for x in (k, v))
    scores = np.einsum("bhtk,bhsk->bhts", q.astype(np.float64), k) * scale + bias
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhts,bhsk->bhtk", weights / weights.sum(axis=-1, keepdims=True), v)


@settings(max_examples=15, deadline=None)
@given(
    heads=st.sampled_from([(2, 2), (4, 2), (3, 1)]),
    lengths=st.tuples(st.integers(2, 7), st.integers(1, 9)),
    kind=st.sampled_from(["bias", "mask of rows", "mask of keys"]),
    seed=st.integers(0, 99),
)
def test_the_call_is_softmax_attention_at_any_length(heads: tuple[int, int], lengths: tuple[int, int], kind: str, seed: int) -> None:
    (h, j), (t, s) = heads, lengths
    q, k, v = drawn(2, h, t, 8, seed=seed), drawn(2, j, s, 8, seed=seed + 1), drawn(2, j, s, 8, seed=seed + 2)
    shape = {"bias": (1, h, t, s), "mask of rows": (2, 1, t, s), "mask of keys": (2, 1, 1, s)}[kind]
    bias = drawn(*shape, seed=seed + 3)
    if kind != "bias":
        bias = np.where(bias > 0, 0.0, MASKED).astype(np.float32)
        bias[..., 0] = 0.0  # Every query sees something.
    with jax.default_matmul_precision("highest"):  # A GPU multiplies float32 numbers as TensorFloat-32.
        y = fused.attend(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), jnp.asarray(bias), scale=0.3, implementation="xla")
    # float32 sums of at most nine terms against float64.
    np.testing.assert_allclose(y, by_numpy(q, k, v, bias, 0.3), atol=2e-6)


def test_a_bias_gets_its_gradient() -> None:
    q, k, v, bias = (jnp.asarray(drawn(*shape, seed=n)) for n, shape in enumerate([(2, 3, 5, 8)] * 3 + [(1, 3, 5, 5)]))

    def plain(bias: jax.Array) -> jax.Array:
        weights = jax.nn.softmax(jnp.einsum("bhtk,bhsk->bhts", q, k) + bias, axis=-1)
        return jnp.sum(jnp.einsum("bhts,bhsk->bhtk", weights, v) ** 2)

    def called(bias: jax.Array) -> jax.Array:
        return jnp.sum(fused.attend(q, k, v, bias, scale=1.0, implementation="xla") ** 2)

    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(jax.grad(called)(bias), jax.grad(plain)(bias), atol=2e-5)


def test_a_single_query_dropout_a_cap_and_full_precision_are_written_out() -> None:
    half = jnp.zeros((1, 2, 4, 8), jnp.bfloat16)
    has_kernel = jax.default_backend() == "gpu"
    assert fused.serves(half, half, dropout=False) == has_kernel
    assert not fused.serves(half[:, :, :1], half, dropout=False)
    assert not fused.serves(half, half, dropout=True)
    assert not fused.serves(half, half, dropout=False, capped=True)
    assert not fused.serves(half.astype(jnp.float32), half, dropout=False)


def batch(length: int, *, vocab_size: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    segments = np.ones((3, length), np.int32)
    segments[1, length - 3 :] = 0
    made = {"encoder_segment_ids": segments, "decoder_segment_ids": segments}
    made |= {f"{side}_input_tokens": rng.integers(3, vocab_size, segments.shape).astype(np.int32) for side in ("encoder", "decoder")}
    return {name: jnp.asarray(value) for name, value in made.items()}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a program with the kernel be traced, not run, on any machine."""
    cudnn = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "_widest_head", lambda: 256)


@pytest.mark.parametrize(("remat", "forward"), [("none", 3), ("products", 3), ("full", 6)])
def test_the_kernel_runs_again_for_the_backward_pass_only_where_nothing_is_kept(as_on_a_gpu: None, remat: Remat, forward: int) -> None:
    counted = collections.Counter(
        equation.primitive.name for equation in equations(traced_gradient(remat)) if "dot_product_attention" in equation.primitive.name
    )
    assert counted == {"dot_product_attention_fwd_wrapper": forward, "dot_product_attention_bwd_wrapper": 3}


def test_the_kernels_operations_are_counted_as_the_plain_forms(request: pytest.FixtureRequest) -> None:
    plain = operations(traced_gradient("none"))
    request.getfixturevalue("as_on_a_gpu")
    assert operations(traced_gradient("none")) == plain


def traced_gradient(remat: Remat) -> Any:
    """The program of the gradient of a T5 whose encoder attends once a layer and its decoder twice."""
    sizes = {"d_model": 16, "d_ff": 32, "num_heads": 2, "d_kv": 8, "vocab_size": 96}
    config = T5Config(**sizes, num_encoder_layers=2, num_decoder_layers=2, dtype="bfloat16", remat=remat, unroll_layers=False)
    graphdef, state = nnx.split(T5(config, nnx.Rngs(0)))
    given_batch = batch(16, vocab_size=96)
    return jax.make_jaxpr(jax.grad(lambda state: jnp.sum(nnx.merge(graphdef, state)(given_batch) ** 2)))(state).jaxpr


@on_gpu
@pytest.mark.parametrize("length", [16, 37])
@pytest.mark.parametrize("family", ["T5", "grouped decoder"])
def test_the_kernel_gives_the_plain_forms_logits_and_gradients(monkeypatch: pytest.MonkeyPatch, family: str, length: int) -> None:
    model: T5 | Decoder
    if family == "T5":
        sizes = {"d_model": 64, "d_ff": 128, "num_heads": 4, "d_kv": 16, "vocab_size": 96}
        model = T5(T5Config(**sizes, num_encoder_layers=2, num_decoder_layers=2, dtype="bfloat16"), nnx.Rngs(0))
    else:
        widths = {"d_model": 64, "d_ff": 128, "num_heads": 4, "num_kv_heads": 2, "head_width": 16, "vocab_size": 96}
        model = Decoder(DecoderConfig(**widths, num_layers=2, dtype="bfloat16"), nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    given_batch = batch(length, vocab_size=96)
    counted = given_batch["decoder_segment_ids"][..., None]

    def loss(state: nnx.State) -> tuple[jax.Array, jax.Array]:
        logits = nnx.merge(graphdef, state)(given_batch) * counted
        return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), logits

    made = {}
    for kernel in (True, False):
        if not kernel:
            monkeypatch.setattr(fused, "_widest_head", lambda: 0)
        else:
            assert fused._widest_head() >= 16
        made[kernel] = jax.value_and_grad(loss, has_aux=True)(state)
    (_, fused_logits), fused_gradient = made[True]
    (_, plain_logits), plain_gradient = made[False]

    def far(a: jax.Array, b: jax.Array) -> float:
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
        return float(jnp.linalg.norm(a - b) / (jnp.linalg.norm(b) + 1e-12))

    # bfloat16 keeps 8 bits, and both round after each of the two layers' operations.
    assert far(fused_logits, plain_logits) < 2e-2
    flat = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])  # noqa: E731
    assert far(flat(fused_gradient), flat(plain_gradient)) < 4e-2
