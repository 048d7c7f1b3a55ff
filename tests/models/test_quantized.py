"""Kernels in eight and four bits: their numbers, their bytes, their gradients, and every kind of method over them."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import assembly, evaluate, interop, programs, trainable, training
from prompt_tuning.data import features
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.methods import ia3, lora
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.together import Together
from prompt_tuning.models import quantized
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.layers import product
from prompt_tuning.models.quantized import QuantizedKernel
from prompt_tuning.models.t5 import T5, T5Config
from tests.interop import tiny
from tests.test_training import assert_same_run, at_batch, terminate
from tests.tiny_experiment import tiny_experiment

CONFIG = T5Config(
    vocab_size=384,
    d_model=64,
    d_ff=96,
    num_heads=2,
    d_kv=16,
    num_encoder_layers=2,
    num_decoder_layers=2,
    relative_buckets=8,
    relative_max_distance=20,
    unroll_layers=False,
)
EVERYWHERE = (".*/(query|key|value|out|gate|wi|wo)",)
METHODS = {
    "prompt": Prompt(length=3, initializer=Uniform()),
    "prefix": Prefix(length=3, hidden=None),
    "lora": Lora(rank=2, targets=EVERYWHERE),
    "dora": Dora(rank=2),
    "ia3": IA3(),
}
KINDS = ("int8", "nf4")
# The paper's appendix E.
NF4 = np.array(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
        -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    np.float32,
)  # fmt: skip
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
every_kind = pytest.mark.parametrize("kind", KINDS)
# All methods over four bits, where the code is the longer, and one over eight.
every_method = pytest.mark.parametrize(("kind", "name"), [("int8", "lora"), *(("nf4", name) for name in METHODS)])


def jitted(function):
    return jax.jit(function, compiler_options=FAST)


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numbers(kernel, kind):
    """What the kernel's numbers become."""
    return np.asarray(quantized.dequantized(*quantized.quantized(jnp.asarray(kernel), kind), kind))


def relative(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def by_hand(kernel_IO, kind, block):
    """The nearest number of each weight, without any of the code under test."""
    kernel = kernel_IO.astype(np.float64)
    if kind == "int8":
        step_O = np.abs(kernel).max(0) / 127.5
        return np.clip(np.round(kernel / step_O), -128, 127) * step_O
    blocks = kernel.reshape(-1, block, kernel.shape[1])
    largest = np.abs(blocks).max(1, keepdims=True)
    nearest = np.abs((blocks / largest)[..., None] - NF4).argmin(-1)
    return (NF4[nearest] * largest).reshape(kernel.shape)


# Numbers and bytes.


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.01), ("nf4", 0.10)])
def test_relative_error_of_normal_weights(kind, bound):
    # Of normal weights: 0.7% and 9.2%. Half as much would be another code, twice as much a mistake.
    error = relative(numbers(kernel := drawn(3, 512, 256), kind), kernel)
    assert bound / 2 < error < bound


@given(
    st.sampled_from(KINDS),
    st.integers(1, 5),
    st.sampled_from([(64, 64), (128, 64), (96, 48), (22, 22), (2, 2)]),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=15)
def test_each_weight_becomes_the_nearest_number(kind, outputs, width_and_block, seed):
    width, block = width_and_block
    kernel = drawn(width, outputs, seed=seed)
    found, wanted = numbers(kernel, kind), by_hand(kernel, kind, block)
    # A weight between two numbers may go either way, and then differs by the distance of the two; all others differ by rounding.
    apart = np.abs(found - wanted) > 1e-5 * np.abs(kernel).max()
    tie = np.abs(np.abs(found - kernel) - np.abs(wanted - kernel)) <= 1e-5 * np.abs(kernel).max()
    assert (~apart | tie).all()


@every_kind
def test_zeros_and_lone_weights_are_kept(kind):
    kernel = np.zeros((64, 2), np.float32)
    kernel[5, 1] = -3.0
    np.testing.assert_allclose(numbers(kernel, kind), kernel, rtol=5e-3)  # int8 ends half a step before the largest.


@every_kind
def test_stacked_layers_are_quantized_each_by_itself(kind):
    kernels = drawn(3, 64, 8) * np.array([1.0, 10.0, 0.1], np.float32)[:, None, None]
    stacked = quantized.quantized(jnp.asarray(kernels), kind)
    for layer in range(3):
        for part, own in zip(stacked, quantized.quantized(jnp.asarray(kernels[layer]), kind), strict=True):
            np.testing.assert_array_equal(part[layer], own)


@pytest.mark.parametrize(("kind", "wanted"), [("int8", 1.0 + 4 / 512), ("nf4", 0.5 + 4 / 64)])
def test_bytes_in_memory_and_in_the_table(kind, wanted):
    parts = quantized.quantized(jnp.asarray(drawn(2, 512, 128)), kind)
    held = sum(part.on_device_size_in_bytes() for part in parts)
    rows = [trainable.Row("", part.shape, str(part.dtype), False, "") for part in parts]
    assert held == sum(row.num_bytes for row in rows) == wanted * 2 * 512 * 128


@every_kind
def test_numbers_are_those_qwix_makes_of_its_own(kind):
    import qwix

    kernel = jnp.asarray(drawn(128, 24))
    how = {"tiled_axes": {0: 64}} if kind == "nf4" else {}
    wanted = qwix.dequantize(qwix.quantize(kernel, "nf4" if kind == "nf4" else jnp.int8, channelwise_axes=[1], **how))
    np.testing.assert_array_equal(numbers(kernel, kind), wanted)


def test_four_bits_of_an_odd_width_are_refused():
    with pytest.raises(UserError, match="nf4 .*even input width, got 7"):
        quantized.quantized(jnp.ones((7, 2)), "nf4")


# The product.


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_product_and_gradient_are_those_of_its_numbers(kind, dtype):
    kernel, x, grad = drawn(96, 40), jnp.asarray(drawn(2, 5, 96, seed=1), dtype), jnp.asarray(drawn(2, 5, 40, seed=2), dtype)
    parts = quantized.quantized(jnp.asarray(kernel), kind)
    module = QuantizedKernel(*parts, axes=("embed", "mlp"), kind=kind, name="x")
    found, back = jax.vjp(module.product, x)
    wanted, wanted_back = jax.vjp(lambda x: product(x, module[...].astype(dtype)), x)
    assert found.dtype == back(grad)[0].dtype == dtype
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(back(grad)[0], wanted_back(grad)[0])


@every_kind
def test_no_float_copy_of_the_kernels_waits_for_the_backward_pass(kind):
    layers, width = 16, 256
    kernels = quantized.quantized(jnp.asarray(drawn(layers, width, width) / width**0.5), kind)

    def loss(x, parts):
        def layer(x, own):
            return jnp.tanh(QuantizedKernel(*own, axes=("a", "b"), kind=kind, name="x").product(x)), None

        return jnp.sum(jax.lax.scan(layer, x, parts)[0])

    compiled = jax.jit(jax.grad(loss)).lower(jnp.ones((1, 2, width)), kernels).compile()
    # A kernel in float32 and some room: 2. All would take 16.
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 4 * width * width


def test_quantized_layers_are_scanned_unless_the_model_says_otherwise():
    config = dataclasses.replace(tiny_experiment().model, unroll_layers=None)
    assert tiny_experiment(model=config).trained_model.unroll_layers is None
    assert tiny_experiment(model=config, base_quantization="int8").trained_model.unroll_layers is False
    told = dataclasses.replace(config, unroll_layers=True)
    assert tiny_experiment(model=told, base_quantization="int8").trained_model.unroll_layers is True


# Models and methods.


def model_of(kind, method=None, seed=0, **changes):
    model = tiny.model_with(dataclasses.replace(CONFIG, **changes), tiny.random_values(CONFIG))
    quantized.quantize(model, kind)
    if method is not None:
        method.attach(model, jax.random.key(seed), vocabulary=None)
    return model


def batch_of(method):
    rng = np.random.default_rng(3)
    examples = [{"inputs": rng.integers(3, 384, 5), "targets": rng.integers(3, 384, 3)} for _ in range(3)]
    return features.layout(examples, input_length=7, target_length=4, prompt=method.layout)


@functools.cache
def parts_of(kind, name, **changes):
    graphdef, tuned, frozen = trainable.split(model_of(kind, METHODS[name], **dict(changes)), METHODS[name].trainable)
    rng = np.random.default_rng(5)
    moved = jax.tree.map(lambda x: x + 0.2 * rng.normal(size=x.shape).astype(np.float32), nnx.to_pure_dict(tuned))
    return graphdef, moved, nnx.to_pure_dict(frozen)


def logits(graphdef, tuned, frozen, batch):
    return np.asarray(jitted(lambda tuned, frozen: nnx.merge(graphdef, tuned, frozen)(batch))(tuned, frozen))


def close(found, wanted, tolerance):
    assert np.isfinite(found).all()
    assert np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


def test_all_linear_layers_but_the_head_are_quantized_and_nothing_else():
    held = {name: str(v.get_value().dtype) for name, v in trainable.named_variables(model_of("nf4"))}
    assert {name for name, dtype in held.items() if dtype == "uint8"} == {
        f"{stack}/layers/{place}/kernel/values"
        for stack, places in {
            "encoder": ("self_attention/attention", "feed_forward/mlp"),
            "decoder": ("self_attention/attention", "cross_attention/attention", "feed_forward/mlp"),
        }.items()
        for block in places
        for place in [f"{block}/{part}" for part in (("gate", "wi", "wo") if "mlp" in block else ("key", "out", "query", "value"))]
    }
    assert held["head/kernel"] == held["embed/embedding"] == "float32"


@every_kind
def test_a_decoder_is_quantized_too(kind):
    config = DecoderConfig(vocab_size=50, d_model=16, d_ff=24, num_layers=2, num_heads=2, num_kv_heads=1, head_width=8, qkv_bias=True)
    model = Decoder(config, nnx.Rngs(params=0))
    batch = {"decoder_input_tokens": jnp.array([[3, 4, 5]]), "decoder_segment_ids": jnp.ones((1, 3), jnp.int32)}
    before = np.asarray(model(batch))
    quantized.quantize(model, kind)
    for linear in quantized.linears(model).values():
        assert isinstance(linear.kernel, QuantizedKernel)
    close(np.asarray(model(batch)), before, {"int8": 0.05, "nf4": 0.5}[kind])
    assert not np.array_equal(np.asarray(model(batch)), before)


@pytest.mark.parametrize(("kind", "name"), [("int8", "lora"), ("nf4", "lora"), ("nf4", "dora"), ("nf4", "ia3")])
def test_before_training_the_model_is_the_quantized_base(kind, name):
    batch = batch_of(METHODS[name])
    wanted = logits(*trainable.split(model_of(kind), nnx.Param), batch)
    found = logits(*trainable.split(model_of(kind, METHODS[name]), METHODS[name].trainable), batch)
    close(found, wanted, 1e-5)  # DoRA divides norms by norms, summed in another order.
    assert relative(wanted, logits(*trainable.split(model_of("none"), nnx.Param), batch)) > 1e-3, "the base is quantized"


@every_method
def test_a_step_changes_all_that_is_trained_and_nothing_else(kind, name):
    graphdef, tuned, frozen = parts_of(kind, name)
    before = jax.tree.map(np.array, (tuned, frozen))
    transform = optax.sgd(0.05)
    step = jitted(
        functools.partial(
            programs.train_step, graphdef=graphdef, transform=transform, seed=0, dropout_rate=0.1, z_loss=0.0, label_smoothing=0.0
        )
    )
    state, metrics = step(programs.TrainState(jnp.int32(0), tuned, transform.init(tuned)), frozen, batch_of(METHODS[name]))
    assert np.isfinite(metrics["loss"])
    jax.tree.map(np.testing.assert_array_equal, frozen, before[1])
    same = [path for path, value in trainable.named(state.tuned).items() if np.array_equal(value, trainable.named(before[0])[path])]
    assert same == []


@pytest.mark.parametrize(("kind", "name"), [("int8", "prompt"), ("nf4", "dora")])
def test_gradients_are_those_over_the_numbers_of_the_quantized_base(kind, name):
    graphdef, tuned, frozen = parts_of(kind, name)
    batch = batch_of(METHODS[name])
    plain = model_of("none", METHODS[name])
    for layer, linear in quantized.linears(plain).items():
        linear.kernel.set_value(jnp.asarray(numbers(tiny.random_values(CONFIG)[f"{layer}/kernel"], kind)))
    plain_graph, _, plain_frozen = trainable.split(plain, METHODS[name].trainable)

    def gradient(graphdef, frozen):
        return jitted(jax.grad(lambda tuned: jnp.sum(jnp.sin(nnx.merge(graphdef, tuned, frozen)(batch)))))(tuned)

    found, wanted = gradient(graphdef, frozen), gradient(plain_graph, nnx.to_pure_dict(plain_frozen))
    jax.tree.map(lambda a, b: close(np.asarray(a), np.asarray(b), 1e-4), found, wanted)


@pytest.mark.slow
@every_method
def test_scanned_and_unrolled_layers_agree(kind, name):
    _, tuned, frozen = parts_of(kind, name)
    graphdef = trainable.split(model_of(kind, METHODS[name], unroll_layers=True), METHODS[name].trainable)[0]
    batch = batch_of(METHODS[name])
    close(logits(graphdef, tuned, frozen, batch), logits(*parts_of(kind, name), batch), 1e-5)


def test_attaching_knows_its_shapes_without_values():
    def attached():
        model = T5(CONFIG, nnx.Rngs(params=0))
        quantized.quantize(model, "nf4")
        METHODS["dora"].attach(model, jax.random.key(0), vocabulary=None)
        return model

    shapes = {path: (v.shape, v.dtype) for path, v in trainable.named_variables(nnx.eval_shape(attached))}
    assert shapes == {path: (v.shape, v.dtype) for path, v in trainable.named_variables(model_of("nf4", METHODS["dora"]))}


# Runs.

RUN = {"base_quantization": "nf4", "method": Lora(rank=2), "train_steps": 5}


@pytest.fixture
def saved_base(tmp_path):
    config = tiny_experiment().model
    interop.save_base(tmp_path / "base", tiny.random_values(config, seed=1), config, dtype="float32")
    return {"base_checkpoint": str(tmp_path / "base"), "allow_random_base": False}


def test_a_checkpoint_is_quantized_as_it_is_loaded_and_the_table_says_so(saved_base):
    settings = tiny_experiment(**RUN, **saved_base)
    built = assembly.assemble(settings)
    assert built.rows == assembly.audit(settings)
    rows = {row.name: row for row in built.rows}
    values, scales = (rows[f"encoder/layers/feed_forward/mlp/wi/kernel/{part}"] for part in ("values", "scales"))
    assert (values.shape, values.dtype, values.num_bytes) == ((1, 8, 24), "uint8", 8 * 24)
    assert (values.size, scales.size) == (16 * 24, 0)
    assert trainable.totals(built.rows)[1] == sum(value.size for value in tiny.abstract(settings.model).values())
    assert (scales.shape, scales.dtype, scales.num_bytes) == ((1, 1, 24), "float32", 24 * 4)
    assert values.source == scales.source == "model.safetensors:encoder/layers/feed_forward/mlp/wi/kernel, as nf4"
    wanted = numbers(tiny.random_values(settings.model, seed=1)["encoder/layers/feed_forward/mlp/wi/kernel"], "nf4")
    model = nnx.merge(built.graphdef, built.tuned, built.frozen)
    np.testing.assert_array_equal(model.encoder.layers.feed_forward.mlp.wi.kernel[...], wanted)


def test_a_stopped_run_goes_on_bit_for_bit_and_is_evaluated_as_it_was(saved_base, tmp_path):
    method = Together((Prompt(length=2, initializer=Uniform()), Lora(rank=2)))
    settings = tiny_experiment(**RUN | {"method": method}, **saved_base)
    whole = training.train(settings, str(tmp_path / "whole"))
    with at_batch(3, terminate), pytest.raises(Interrupted):
        training.train(settings, str(tmp_path / "run"))
    training.train(settings, str(tmp_path / "run"))
    assert_same_run(settings, tmp_path / "run", tmp_path / "whole")
    loaded = evaluate.load(settings, workdir=str(tmp_path / "whole"), checkpoint="best")
    assert loaded.step == whole["best"]["step"]
    assert any(str(value.dtype) == "uint8" for value in jax.tree.leaves(loaded.parts[2]))
    base = evaluate.load(settings, workdir=str(tmp_path / "whole"), checkpoint="base")
    assert any(str(value.dtype) == "uint8" for value in jax.tree.leaves(base.parts[1]))


def test_a_run_is_not_resumed_on_a_base_in_other_numbers(saved_base):
    prints = {kind: assembly.assemble(tiny_experiment(**RUN | {"base_quantization": kind}, **saved_base)).base for kind in ("none", *KINDS)}
    assert len({base.fingerprint for base in prints.values()}) == 3
    assert assembly.assemble(tiny_experiment(**RUN, **saved_base)).base == prints["nf4"]


# What cannot be done.


@pytest.mark.parametrize(("method", "merge"), [(METHODS["lora"], lora.merge), (METHODS["dora"], lora.merge), (METHODS["ia3"], ia3.merge)])
def test_merging_into_a_quantized_kernel_is_refused_and_changes_nothing(method, merge):
    model = model_of("nf4", method)
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model)))
    with pytest.raises(UserError, match=r"kernel is quantized \(nf4\) and cannot be changed.*BASE_QUANTIZATION"):
        merge(model)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model)), before)


def test_pissa_is_refused():
    with pytest.raises(UserError, match=r"decoder/.*: its kernel is quantized \(int8\).*PiSSA"):
        model_of("int8", Pissa(rank=2))


def test_training_a_quantized_kernel_is_refused():
    settings = tiny_experiment(method=Full(), base_quantization="int8")
    with pytest.raises(UserError, match=r"kernel/values is quantized \(int8\) and cannot be trained"):
        training.trainer(settings, assembly.assemble(settings))


def test_other_numbers_are_refused():
    with pytest.raises(UserError, match=r"base_quantization: wanted one of .*'nf4'.*got 'fp4'"):
        tiny_experiment(base_quantization="fp4")


def test_saving_a_quantized_base_is_refused():
    with pytest.raises(UserError, match="save_base: .*quantized"):
        tiny_experiment(method=Full(), save_base=True, base_quantization="nf4")


# Several devices.

SCRIPT = """
import json
import re
import jax
from prompt_tuning import assembly, training
from prompt_tuning.data import features
from prompt_tuning.sharding import Mesh
from tests.models.test_quantized import CONFIG, METHODS
from tests.tiny_experiment import tiny_experiment

assert jax.device_count() == 8
found = {}
for mesh in (Mesh(1, 1), Mesh(2, 4)):
    settings = tiny_experiment(model=CONFIG, method=METHODS["lora"], base_quantization="nf4", mesh=mesh, batch_size=4)
    built = assembly.assemble(settings)
    ready = training.trainer(settings, built)
    example = {"inputs": [5, 6, 7], "targets": [8, 1]}
    batch = training.on_devices(features.layout([example] * 4, input_length=6, target_length=3), built.mesh)
    step = ready.step.lower(ready.state, built.frozen, batch).compile()
    state, losses = ready.state, []
    for _ in range(3):
        state, metrics = step(state, built.frozen, batch)
        jax.block_until_ready(state)  # One program in flight: many devices on few cores would wait for each other.
        losses.append(float(metrics["loss"]))
    gathered = [line for line in step.as_text().splitlines() if re.search("u8.*all-gather", line)]
    found[f"{mesh.data}x{mesh.model}"] = [losses, len(gathered)]
print("FOUND " + json.dumps(found))
"""


@pytest.mark.slow
def test_eight_devices_train_as_one_and_gather_no_kernel():
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "NPROC": "32", "JAX_PLATFORMS": "cpu"}
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=root, env=env, text=True, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("FOUND "))[len("FOUND ") :])
    (alone, _), (together, gathered) = found["1x1"], found["2x4"]
    assert len(set(alone)) == 3 and gathered == 0
    np.testing.assert_allclose(together, alone, rtol=2e-5)
