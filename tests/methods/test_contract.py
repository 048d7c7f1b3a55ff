"""What must hold for every tuning method (`cases.py`), on one tiny T5.

Compilation is most of the time here, so programs are compiled with little optimization and shared where they can be.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from prompt_tuning import checkpoints, programs, trainable
from prompt_tuning.data import features
from prompt_tuning.models.layers import Fixed
from prompt_tuning.models.t5 import T5
from tests.interop import tiny
from tests.methods.cases import CASES, CONFIG, VOCABULARY

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
every_method = pytest.mark.parametrize("name", CASES)
every_program = pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if c.variant else ()) for n, c in CASES.items()])


def jitted(function):
    return jax.jit(function, compiler_options=FAST)


def model_of(name, seed=0, **changes):
    """A fresh random base with the method on it, and where its values came from."""
    model = tiny.model_with(dataclasses.replace(CONFIG, **changes), base_values())
    return model, CASES[name].method.attach(model, jax.random.key(seed), vocabulary=VOCABULARY)


@functools.cache
def base_values():
    return tiny.random_values(CONFIG)


@functools.cache
def moved(name):
    """What the method trains, some way off its first values, as a nested dict of arrays."""
    model, _ = model_of(name)
    _, tuned, _ = trainable.split(model, CASES[name].method.trainable)
    rng = np.random.default_rng(5)
    return jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), nnx.to_pure_dict(tuned))


def parts_of(name, **changes):
    """`(graphdef, tuned, frozen)` with the moved values."""
    model, _ = model_of(name, **changes)
    graphdef, _, frozen = trainable.split(model, CASES[name].method.trainable)
    return graphdef, moved(name), nnx.to_pure_dict(frozen)


def examples(count, seed=0):
    rng = np.random.default_rng(seed)

    def ids(most):
        return [*rng.integers(3, CONFIG.vocab_size, rng.integers(1, most)).tolist(), features.EOS_ID]

    return [{"inputs": ids(8), "targets": ids(5), "task": number % 2} for number in range(count)]


def batch_of(name, packed=False):
    """Four examples, a row each or two rows of two."""
    four = examples(4)
    rows = [four[:2], four[2:]] if packed else [[each] for each in four]
    length = 2 if packed else 1
    layout = CASES[name].method.layout
    extra = length - 1  # Packed rows hold a prompt for each of their examples.
    return features.layout_rows(
        rows,
        input_length=8 * length + extra * layout.encoder_length,
        target_length=5 * length + extra * layout.decoder_length,
        prompt=layout,
        packed=packed,
    )


@functools.cache
def forward(graphdef):
    return jitted(lambda tuned, frozen, batch: nnx.merge(graphdef, tuned, frozen)(batch))


def logits(parts, batch):
    graphdef, tuned, frozen = parts
    return np.asarray(forward(graphdef)(tuned, frozen, batch))


@functools.cache
def moved_logits(name):
    """Of scanned layers, padded rows, all positions at once, float32: what other ways to compute must agree with."""
    return logits(parts_of(name), batch_of(name))


@functools.cache
def base_logits():
    return logits(trainable.split(tiny.model_with(CONFIG, base_values()), nnx.Param), batch_of("full"))


def close(found, wanted, tolerance):
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@every_method
def test_the_trained_parameters_are_exactly_those_stated(name):
    model, sources = model_of(name)
    before = set(tiny.abstract(CONFIG))
    rows = trainable.audit(model, CASES[name].method.trainable, dict.fromkeys(before, "base") | sources)
    assert trainable.totals(rows)[0] == CASES[name].trained
    after = {row.name for row in rows}
    assert before <= after and set(sources) <= after
    fixed = {path for path, variable in trainable.named_variables(model) if isinstance(variable, Fixed)}
    assert all(row.trained != (row.name in fixed) and row.dtype == "float32" for row in rows if row.name not in before)
    assert CASES[name].method.layout.encoder_length >= 0


@every_method
def test_attaching_knows_its_shapes_without_values(name):
    def attached():
        model = T5(CONFIG, nnx.Rngs(params=0))
        CASES[name].method.attach(model, jax.random.key(0), vocabulary=VOCABULARY)
        return model

    shapes = {path: v.get_value() for path, v in trainable.named_variables(nnx.eval_shape(attached))}
    values = {path: v.get_value() for path, v in trainable.named_variables(model_of(name)[0])}
    assert {path: (x.shape, x.dtype) for path, x in shapes.items()} == {path: (x.shape, x.dtype) for path, x in values.items()}


@every_method
def test_the_first_values_come_from_the_key_and_differ_between_layers(name):
    case = CASES[name]
    first, again, other = (trainable.named(nnx.to_pure_dict(nnx.state(model_of(name, seed)[0], trainable.Tunable))) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    for path, value in first.items():
        drawn = not np.array_equal(value, other[path])
        if drawn and "/layers/" in path:
            assert not np.array_equal(value[0], value[1]), f"{path}: both layers begin alike"
    base = {path: v[...] for path, v in trainable.named_variables(model_of(name)[0]) if path in base_values()}
    changed = [path for path, value in base.items() if not np.array_equal(value, base_values()[path])]
    assert changed == [] or "singular" in model_of(name)[1][changed[0]], case


@pytest.mark.parametrize("name", [each for each in every_program.args[1] if CASES[each.values[0]].neutral])
def test_before_training_the_model_is_the_base(name):
    model, _ = model_of(name)
    close(
        logits(trainable.split(model, CASES[name].method.trainable), batch_of(name)), base_logits(), 1e-6 if "pissa" not in name else 1e-5
    )
    assert np.abs(moved_logits(name) - base_logits()).max() > 1e-2, "what is trained matters"


@every_program
def test_a_step_changes_all_that_is_trained_and_nothing_else(name):
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
    assert jax.tree.structure(state.tuned) == jax.tree.structure(tuned)
    jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
    same = [path for path, value in trainable.named(state.tuned).items() if np.array_equal(value, trainable.named(before[0])[path])]
    assert same == []
    assert np.isfinite(losses).all()
    if not getattr(CASES[name].method, "dropout_rate", 0.0):  # Dropout of its own draws another loss at every step.
        assert min(losses[1:]) < losses[0]  # A step may overshoot, for the rate is the same for all methods.


@every_program
def test_what_is_trained_comes_back_from_a_checkpoint_bit_for_bit(name, tmp_path):
    _, tuned, frozen = parts_of(name)
    base = checkpoints.Base("random", checkpoints.fingerprint(frozen))
    with checkpoints.Checkpoints(tmp_path / "c", base=base) as writer:
        writer.save(1, tuned, {}, extra={})
    model, _ = model_of(name, seed=9)  # Other first values: the checkpoint must replace them all.
    graphdef, fresh, frozen = trainable.split(model, CASES[name].method.trainable)
    base = checkpoints.Base("random", checkpoints.fingerprint(nnx.to_pure_dict(frozen)))
    with checkpoints.Checkpoints(tmp_path / "c", base=base, writable=False) as reader:
        restored = reader.restore(1, nnx.to_pure_dict(fresh))
    assert jax.tree.structure(restored.trainable) == jax.tree.structure(tuned)
    jax.tree.map(np.testing.assert_array_equal, restored.trainable, tuned)
    np.testing.assert_array_equal(logits((graphdef, restored.trainable, frozen), batch_of(name)), moved_logits(name))


@pytest.mark.slow
@every_method
def test_scanned_and_unrolled_layers_agree(name):
    close(logits(parts_of(name, unroll_layers=True), batch_of(name)), moved_logits(name), 1e-5)


@every_program
def test_cached_decoding_agrees_with_all_positions_at_once(name):
    graphdef, tuned, frozen = parts_of(name)
    batch = batch_of(name)
    start_tokens, start_slots = features.decoder_start(CASES[name].method.layout)
    rows, start, length = len(batch["decoder_input_tokens"]), len(start_tokens), batch["decoder_input_tokens"].shape[1]

    @jitted
    def stepwise(tuned, frozen, batch, tokens, slots):
        model = nnx.merge(graphdef, tuned, frozen)
        segments = batch["encoder_segment_ids"]
        encoded = model.encode(batch["encoder_input_tokens"], slots_BS=batch.get("encoder_prompt_slots"), segment_ids_BS=segments)
        cache = model.init_cache(encoded, segments, length=length)
        first, cache = model.decode_step(tokens, cache, slots_BT=slots)

        def one(cache, tokens_B):
            found, cache = model.decode_step(tokens_B[:, None], cache)
            return cache, found[:, 0]

        _, later = jax.lax.scan(one, cache, batch["decoder_input_tokens"][:, start:].T)
        return jnp.concatenate([first, later.transpose(1, 0, 2)], 1)

    parts = [np.tile(each, (rows, 1)) for each in (start_tokens, start_slots)]
    close(np.asarray(stepwise(tuned, frozen, batch, *parts)), moved_logits(name), 1e-5)


@every_program
def test_packed_examples_agree_with_examples_alone(name):
    alone, packed = batch_of(name), batch_of(name, packed=True)
    wanted = moved_logits(name)[alone["decoder_loss_weights"] > 0]
    close(logits(parts_of(name), packed)[packed["decoder_loss_weights"] > 0], wanted, 1e-5)


@pytest.mark.slow
@every_method
def test_bfloat16_runs_and_is_near(name):
    # Eight bits of mantissa, through four layers.
    close(logits(parts_of(name, dtype="bfloat16"), batch_of(name)), moved_logits(name), 0.1)


SCRIPT = """
import json
import jax
from prompt_tuning import assembly, optimizers, training
from prompt_tuning.sharding import Mesh
from tests.methods.cases import CASES, CONFIG
from tests.methods.test_contract import examples
from prompt_tuning.data import features
from tests.tiny_experiment import tiny_experiment

assert jax.device_count() == 8
found = {}
for name, case in CASES.items():
    found[name] = {}
    for mesh in (Mesh(1, 1), Mesh(2, 4)):
        optimizer = optimizers.AdamW(learning_rate=0.02)
        settings = tiny_experiment(model=CONFIG, method=case.method, optimizer=optimizer, mesh=mesh, batch_size=8)
        built = assembly.assemble(settings)
        ready = training.trainer(settings, built)
        state, losses = ready.state, []
        for step in range(3):
            batch = features.layout(examples(8, seed=step), input_length=8, target_length=5, prompt=case.method.layout)
            state, metrics = ready.step(state, built.frozen, training.on_devices(batch, built.mesh))
            jax.block_until_ready(state)  # One program in flight: many devices on few cores would wait for each other.
            losses.append(float(metrics["loss"]))
        found[name][f"{mesh.data}x{mesh.model}"] = losses
print("FOUND " + json.dumps(found))
"""


@pytest.mark.slow
def test_eight_devices_train_as_one():
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "NPROC": "32", "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            out, errors = process.communicate(timeout=1800)
        finally:
            process.kill()  # A hung one ignores SIGTERM.
    assert process.returncode == 0, errors[-3000:]
    found = json.loads(next(line for line in out.splitlines() if line.startswith("FOUND "))[len("FOUND ") :])
    assert set(found) == set(CASES)
    for name, losses in found.items():
        assert len(set(losses["1x1"])) == 3, f"{name}: the weights move"
        np.testing.assert_allclose(losses["2x4"], losses["1x1"], rtol=2e-5, err_msg=name)
