"""What must hold for every tuning method (`cases.py`) on a decoder-only model: a tiny Llama, with its examples laid as one sequence."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from prompt_tuning import checkpoints, decoding, programs, trainable, training
from prompt_tuning.data import decoder_vocabularies, features
from prompt_tuning.data.features import Delimiters
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.methods.attempt import Attempt
from prompt_tuning.methods.dept import DePT
from prompt_tuning.models.decoder import DecoderConfig
from prompt_tuning.models.layers import Fixed
from tests.interop import tiny_decoders as tiny
from tests.methods.cases import CASES, VOCABULARY
from tests.methods.test_contract import FAST, close
from tests.models.test_decoder import drawn
from tests.test_training import assert_same_run, at_batch, terminate
from tests.tiny_experiment import tiny_experiment

LLAMA = Delimiters(eos=2, pad=2, start=None, bos=1, inputs_end=False)
CONFIG = DecoderConfig(
    vocab_size=384, d_model=16, d_ff=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, tied=True, unroll_layers=False
)


def refusal(method):
    """What a method that cannot apply says; None of one that can."""
    if isinstance(method, DePT | Attempt) or getattr(method, "teachers", ()):
        return "wanted an encoder-decoder, got Decoder"
    return "a decoder-only model has one sequence, got 2; prompt the inputs" if method.layout.decoder_length else None


REFUSED = {name: refusal(case.method) for name, case in CASES.items() if refusal(case.method)}
FAST_SET = ("prompt", "prefix", "lora")
every_method = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST_SET else pytest.mark.slow) for name in CASES if name not in REFUSED]
)


def jitted(function):
    return jax.jit(function, compiler_options=FAST)


@functools.cache
def base_values():
    return {name: drawn(name, leaf.shape) for name, leaf in tiny.abstract(CONFIG).items()}


def model_of(name, seed=0):
    model = tiny.model_with(CONFIG, base_values())
    return model, CASES[name].method.attach(model, jax.random.key(seed), vocabulary=VOCABULARY)


def layout_of(name):
    return dataclasses.replace(CASES[name].method.layout, delimiters=LLAMA)


@functools.cache
def parts_of(name):
    """`(graphdef, tuned, frozen)`, what is trained some way off its first values."""
    graphdef, tuned, frozen = trainable.split(model_of(name)[0], CASES[name].method.trainable)
    rng = np.random.default_rng(5)
    moved = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), nnx.to_pure_dict(tuned))
    return graphdef, moved, nnx.to_pure_dict(frozen)


def batch_of(name, packed=False):
    """Four examples, a row each or two rows of two."""
    rng = np.random.default_rng(0)
    four = [
        {"inputs": rng.integers(3, 384, size=source).tolist(), "targets": [*rng.integers(3, 384, size=target).tolist(), 2], "task": i % 2}
        for i, (source, target) in enumerate([(7, 3), (1, 4), (4, 0), (5, 2)])
    ]
    prompt = layout_of(name)
    rows = [four[:2], four[2:]] if packed else [[each] for each in four]
    lengths = {"input_length": 18 + prompt.encoder_length, "target_length": 10} if packed else {"input_length": 8, "target_length": 5}
    return features.layout_rows(rows, prompt=prompt, packed=packed, **lengths)


@functools.cache
def forward(graphdef):
    return jitted(lambda tuned, frozen, batch: nnx.merge(graphdef, tuned, frozen)(batch))


def logits(parts, batch):
    graphdef, tuned, frozen = parts
    return np.asarray(forward(graphdef)(tuned, frozen, batch))


@functools.cache
def moved_logits(name):
    return logits(parts_of(name), batch_of(name))


@every_method
def test_a_step_changes_all_that_is_trained_and_nothing_else(name):
    model, sources = model_of(name)
    rows = trainable.audit(model, CASES[name].method.trainable, dict.fromkeys(base_values(), "base") | sources)
    fixed = {path for path, variable in trainable.named_variables(model) if isinstance(variable, Fixed)}
    assert {row.name for row in rows if row.trained} == set(trainable.named(parts_of(name)[1])) and set(sources) >= fixed
    graphdef, tuned, frozen = parts_of(name)
    before = jax.tree.map(np.array, (tuned, frozen))
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    step = jitted(
        functools.partial(
            programs.train_step, graphdef=graphdef, transform=transform, seed=0, dropout_rate=0.1, z_loss=0.0, label_smoothing=0.0
        )
    )
    state, losses = programs.TrainState(jnp.int32(0), tuned, transform.init(tuned)), []
    for _ in range(3):
        state, metrics = step(state, frozen, batch_of(name))
        losses.append(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
    after = trainable.named(state.tuned)
    assert [path for path, value in trainable.named(before[0]).items() if np.array_equal(value, after[path])] == []
    assert np.isfinite(losses).all()
    if not getattr(CASES[name].method, "dropout_rate", 0.0):  # Dropout of its own draws another loss at every step.
        assert min(losses[1:]) < losses[0]  # A step may overshoot, for the rate is the same for all methods.


@every_method
def test_cached_decoding_agrees_with_all_positions_at_once(name):
    graphdef, tuned, frozen = parts_of(name)
    batch = batch_of(name)
    length = batch["decoder_input_tokens"].shape[1]

    @jitted
    def stepwise(tuned, frozen, batch):
        model = nnx.merge(graphdef, tuned, frozen)
        cache = decoding.encode(model, batch, length=length)
        slots = batch.get("decoder_prompt_slots")
        first, cache = model.decode_step(batch["decoder_input_tokens"][:, :1], cache, slots_BT=None if slots is None else slots[:, :1])

        def one(cache, tokens_B):
            found, cache = model.decode_step(tokens_B[:, None], cache)
            return cache, found[:, 0]

        _, later = jax.lax.scan(one, cache, batch["decoder_input_tokens"][:, 1:].T)
        return jnp.concatenate([first, later.transpose(1, 0, 2)], 1)

    counted = batch["decoder_loss_weights"] > 0
    close(np.asarray(stepwise(tuned, frozen, batch))[counted], moved_logits(name)[counted], 1e-5)


@every_method
def test_packed_examples_agree_with_examples_alone(name):
    alone, packed = batch_of(name), batch_of(name, packed=True)
    wanted = moved_logits(name)[alone["decoder_loss_weights"] > 0]
    close(logits(parts_of(name), packed)[packed["decoder_loss_weights"] > 0], wanted, 1e-5)


@every_method
def test_what_is_trained_comes_back_from_a_checkpoint_bit_for_bit(name, tmp_path):
    _, tuned, frozen = parts_of(name)
    with checkpoints.Checkpoints(tmp_path / "c", base=checkpoints.Base("random", checkpoints.fingerprint(frozen))) as writer:
        writer.save(1, tuned, {}, extra={})
    graphdef, fresh, frozen = trainable.split(model_of(name, seed=9)[0], CASES[name].method.trainable)
    base = checkpoints.Base("random", checkpoints.fingerprint(nnx.to_pure_dict(frozen)))
    with checkpoints.Checkpoints(tmp_path / "c", base=base, writable=False) as reader:
        restored = reader.restore(1, nnx.to_pure_dict(fresh))
    jax.tree.map(np.testing.assert_array_equal, restored.trainable, tuned)
    np.testing.assert_array_equal(logits((graphdef, restored.trainable, frozen), batch_of(name)), moved_logits(name))


@pytest.mark.parametrize("name", REFUSED)
def test_a_method_that_wants_an_encoder_says_so_in_a_line(name):
    with pytest.raises(UserError, match=re.escape(REFUSED[name])) as refused:
        layout_of(name)
        model_of(name)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("packed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_stopped_and_resumed_equals_never_interrupted(packed, tmp_path):
    settings = tiny_experiment(
        model=dataclasses.replace(CONFIG, vocab_size=2048),
        vocabulary=decoder_vocabularies.SentencePiece("bundled:world.model"),
        method=CASES["prompt"].method,
        packed=packed,
        input_length=16,
        dropout_rate=0.1,
    )
    training.train(settings, str(tmp_path / "whole"))
    with at_batch(3, terminate), pytest.raises(Interrupted):
        training.train(settings, str(tmp_path / "run"))
    training.train(settings, str(tmp_path / "run"))
    assert_same_run(settings, tmp_path / "run", tmp_path / "whole")
