"""The loss a few tokens at a time: that of all logits at once, in value and in every gradient, and never their memory."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import assembly, losses, many_runs, programs, trainable
from prompt_tuning.methods.base import Method
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.wayward import Wayward
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.t5 import T5, T5Config
from tests.jaxprs import equations
from tests.tiny_experiment import CONFIG, PROMPT, tiny_experiment

VOCABULARY, WIDTH = 23, 6
SMALL: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": WIDTH, "d_ff": 8, "num_heads": 2}
T5_SMALL = T5Config(**SMALL, d_kv=2, num_encoder_layers=1, num_decoder_layers=1)
DECODER_SMALL = DecoderConfig(**SMALL, num_kv_heads=1, head_width=2, num_layers=1)
HEADS: dict[str, T5Config | DecoderConfig] = {
    "T5": T5_SMALL,
    "T5, tied and scaled": dataclasses.replace(T5_SMALL, tied=True),
    "Llama": DECODER_SMALL,
    "Gemma 2, tied and capped": dataclasses.replace(DECODER_SMALL, tied=True, logit_cap=2.0),
}


@functools.cache
def split_model(name: str) -> tuple[Any, Any]:
    config = HEADS[name]
    model = T5(config, nnx.Rngs(0)) if isinstance(config, T5Config) else Decoder(config, nnx.Rngs(0))
    return nnx.split(model)


def check(name: str, *, rows: int, length: int, chunks: int, smoothing: float, z_loss: float, dtype: str, seed: int) -> None:
    graphdef, state = split_model(name)
    rng = np.random.default_rng(seed)
    x = jnp.asarray(rng.normal(size=(rows, length, WIDTH)), dtype)
    targets = jnp.asarray(rng.integers(0, VOCABULARY, (rows, length)))
    weights = jnp.asarray(rng.choice([0.0, 0.5, 1.0], (rows, length)), jnp.float32)
    settings: Any = {"weights_BT": weights, "label_smoothing": smoothing, "z_loss": z_loss}

    def whole(state: Any, x: jax.Array) -> Any:
        return losses.per_token(nnx.merge(graphdef, state).logits(x), targets, **settings)

    def cut(state: Any, x: jax.Array) -> Any:
        return losses.per_token_in_chunks(nnx.merge(graphdef, state).logits, x, targets, chunks=chunks, **settings)

    ours, theirs = (jax.jit(jax.value_and_grad(form, (0, 1), has_aux=True))(state, x) for form in (cut, whole))
    # Sums of float32 in another order; a head's gradient in bfloat16 is rounded once a chunk.
    limit = 1e-5 if dtype == "float32" else 2e-2
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        one, other = (np.asarray(value, np.float32) for value in (one, other))
        np.testing.assert_allclose(one, other, atol=limit * max(1.0, float(np.abs(other).max())))


@pytest.mark.parametrize("name", HEADS)
def test_chunks_give_the_loss_and_the_gradients_of_all_logits_at_once(name: str) -> None:
    check(name, rows=3, length=7, chunks=3, smoothing=0.1, z_loss=1e-2, dtype="float32", seed=0)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(list(HEADS)),
    rows=st.integers(1, 4),
    cuts=st.integers(1, 9).flatmap(lambda length: st.tuples(st.just(length), st.integers(1, length))),
    smoothing=st.sampled_from([0.0, 0.1]),
    z_loss=st.sampled_from([0.0, 1e-2]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_any_chunks_give_the_loss_and_the_gradients_of_all_logits_at_once(name: str, cuts: tuple[int, int], **given: Any) -> None:
    check(name, length=cuts[0], chunks=cuts[1], **given)


def batch_of(*, rows: int, source: int, target: int, vocabulary: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, target + 1, (rows, 1))
    there = (np.arange(target) < lengths).astype(np.int32)
    slots = np.full((rows, source), -1)
    slots[:, :3] = np.arange(3)
    tokens = rng.integers(3, vocabulary, (3, rows, max(source, target)))
    batch = {
        "encoder_input_tokens": tokens[0, :, :source],
        "encoder_segment_ids": np.ones((rows, source), np.int32),
        "encoder_prompt_slots": slots,
        "decoder_input_tokens": tokens[1, :, :target] * there,
        "decoder_segment_ids": there,
        "decoder_target_tokens": tokens[2, :, :target] * there,
        "decoder_loss_weights": there.astype(np.float32),
    }
    return {name: jnp.asarray(value) for name, value in batch.items()}


# Sizes that occur nowhere else in the model.
ROWS, TARGET = 3, 5
BATCH = batch_of(rows=ROWS, source=9, target=TARGET, vocabulary=CONFIG.vocab_size)
PARTS: Any = {"z_loss": 1e-3, "label_smoothing": 0.1, "choice_losses": None, "share": 1.0}


def gradient_of(model: Any, method: Method) -> Any:
    """Value and gradient of the loss with respect to what a method trains, as a function of it, and its first value."""
    built = assembly.assemble(tiny_experiment(model=model, method=method))

    def loss_of(tuned: Any) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        whole = nnx.merge(built.graphdef, tuned, built.frozen)
        return programs.loss(whole, whole.hidden(BATCH), BATCH, **PARTS)

    return jax.value_and_grad(loss_of, has_aux=True), built.tuned


def cut_finely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_LEAST_BYTES", 0)
    monkeypatch.setattr(losses, "_CHUNK_BYTES", 2 * 4 * ROWS * CONFIG.vocab_size)
    monkeypatch.setattr(losses, "_CHUNK_TOKENS", 1)


DECODER = DecoderConfig(
    vocab_size=384, d_model=16, d_ff=24, num_layers=2, num_heads=2, num_kv_heads=1, head_width=4, logit_cap=3.0, unroll_layers=False
)
MODELS = {"T5": CONFIG, "T5 v1.0": dataclasses.replace(CONFIG, tied=True), "decoder": DECODER}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("T5", PROMPT),
        ("decoder", Full()),
        pytest.param("T5", Full(), marks=pytest.mark.slow),
        pytest.param("T5 v1.0", PROMPT, marks=pytest.mark.slow),
        pytest.param("T5 v1.0", Full(), marks=pytest.mark.slow),
        pytest.param("decoder", PROMPT, marks=pytest.mark.slow),
    ],
)
def test_a_step_in_chunks_is_the_plain_one_and_holds_no_logits(monkeypatch: pytest.MonkeyPatch, name: str, method: Method) -> None:
    vocabulary = CONFIG.vocab_size

    def shapes(form: Any) -> set[tuple[int, ...]]:
        return {variable.aval.shape for equation in equations(jax.make_jaxpr(form)(tuned).jaxpr) for variable in equation.outvars}

    form, tuned = gradient_of(MODELS[name], method)
    assert (ROWS, TARGET, vocabulary) in shapes(form)
    (plain, said), plain_gradient = jax.jit(form)(tuned)
    cut_finely(monkeypatch)
    form, tuned = gradient_of(MODELS[name], method)
    made = shapes(form)
    assert (ROWS, 2, vocabulary) in made
    head = {(vocabulary, CONFIG.d_model), (CONFIG.d_model, vocabulary)}
    assert not [shape for shape in made - head if vocabulary in shape and np.prod(shape) >= ROWS * TARGET * vocabulary]
    # A frozen head has no gradient: nothing of its shape is made, in either order.
    assert bool(made & head) == isinstance(method, Full)
    (value, found), gradient = jax.jit(form)(tuned)
    np.testing.assert_allclose(value, plain, rtol=1e-5)
    assert set(found) == set(said)
    for name in said:
        np.testing.assert_allclose(found[name], said[name], rtol=1e-5)
    for name, other in trainable.named(plain_gradient).items():
        one, other = np.asarray(trainable.named(gradient)[name]), np.asarray(other)
        np.testing.assert_allclose(one, other, atol=1e-5 * max(1.0, float(np.abs(other).max())), err_msg=name)


def test_a_penalty_gets_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    cut_finely(monkeypatch)
    form, tuned = gradient_of(CONFIG, Wayward(length=3, initializer=PROMPT.initializer))
    assert "penalty" in jax.eval_shape(form, tuned)[0][1]


def test_several_runs_in_chunks_are_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    built = assembly.assemble(tiny_experiment(method=PROMPT))
    experiment = tiny_experiment(method=PROMPT)
    transform = programs.optimizer(experiment, nnx.merge(built.graphdef, built.tuned, built.frozen))
    states = tuple(programs.TrainState(jnp.int32(0), built.tuned, transform.init(built.tuned)) for _ in range(2))
    batch = {name: jnp.stack([value, value[::-1]]) for name, value in BATCH.items()}

    def steps() -> Any:
        def step(states: Any) -> Any:
            return many_runs.train_step(
                states, built.frozen, {}, batch, jnp.ones(2, bool), graphdef=built.graphdef, transforms=[transform] * 2, seeds=[0, 1],
                dropout_rate=0.0, z_loss=1e-3, label_smoothing=0.1,
            )  # fmt: skip

        return jax.jit(step)(states)

    plain = steps()
    cut_finely(monkeypatch)
    for one, other in zip(jax.tree.leaves(steps()), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-6)  # A step of AdamW, whose first is a quotient of gradients.


def test_only_large_logits_are_cut() -> None:
    assert losses.chunks(16, 16, 32128) == 1
    assert losses.chunks(16, 512, 32000) == 16  # 64 MB each.
    assert losses.chunks(16, 512, 256000) == 16  # 512 tokens each.
    assert losses.chunks(1, 700, 256000) == 1
    assert losses.chunks(16, 512, 256000, share=1 / 1024) == 1
    assert losses.chunks(4096, 3, 256000) == 3
