"""The step: what it changes, what its program holds, and how large it grows."""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import assembly, optimizers, programs, trainable, training
from prompt_tuning.data import features
from prompt_tuning.errors import UserError
from prompt_tuning.methods.adapter import Adapter
from prompt_tuning.methods.full import Full
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.methods.together import Together
from prompt_tuning.models.t5 import T5
from prompt_tuning.sharding import Mesh
from tests.jaxprs import equations
from tests.tiny_experiment import CONFIG, EXPERIMENT, PROMPT, tiny_experiment

# Sizes that occur nowhere else in the model, so that a contraction over rows or positions is known by its size.
ROWS, SOURCE, TARGET = 5, 13, 7
# Query, key, value, out and three of the gated feed-forward; the decoder attends twice.
ENCODER_MATRICES, DECODER_MATRICES, HEAD = 7, 11, 1


def numpy_copy(tree):
    return jax.tree.map(lambda leaf: np.array(leaf), tree)


@pytest.mark.parametrize("method", [PROMPT, Full(patterns=("decoder/.*",)), Full()], ids=["prompt", "decoder", "full"])
def test_only_trainables_change_and_the_state_is_donated(method):
    settings = tiny_experiment(method=method)
    built = assembly.assemble(settings)
    ready = training.trainer(settings, built)
    frozen, tuned = numpy_copy(built.frozen), numpy_copy(built.tuned)
    state = ready.state
    with training.batches(settings, start_step=0) as batches:
        for _ in range(3):
            given = state
            state, metrics = ready.step(state, built.frozen, training.on_devices(next(batches), built.mesh))
            assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given)), "the buffers of the old state are used again"
            assert np.isfinite(float(metrics["loss"]))
    jax.tree.map(np.testing.assert_array_equal, frozen, numpy_copy(built.frozen))
    changed = {name: bool((before != after).any()) for (name, before), after in _pairs(tuned, state.tuned)}
    # A table of relative positions has buckets that no pair of positions falls in, never none that one does.
    assert all(changed.values()), [name for name, moved in changed.items() if not moved]
    assert int(state.step) == 3


def _pairs(before, after):
    return zip(trainable.named(before).items(), trainable.named(numpy_copy(after)).values(), strict=True)


@pytest.mark.parametrize(("method", "rate", "falls_to"), [(PROMPT, 0.3, 0.96), (Full(), 0.01, 0.3)], ids=["prompt", "full"])
def test_the_loss_falls(method, rate, falls_to):
    # Over a random base a prompt can do little more than shift the logits.
    settings = tiny_experiment(method=method, optimizer=optimizers.AdamW(learning_rate=rate), train_steps=40)
    built = assembly.assemble(settings)
    ready = training.trainer(settings, built)
    state, found = ready.state, []
    with training.batches(settings, start_step=0) as batches:
        for _ in range(settings.train_steps):
            state, metrics = ready.step(state, built.frozen, training.on_devices(next(batches), built.mesh))
            found.append(float(metrics["loss"]))
    assert np.mean(found[-5:]) < falls_to * np.mean(found[:3])


@pytest.mark.parametrize(
    ("method", "factored"),
    [
        (PROMPT, set()),
        (Lora(rank=8), set()),
        (Adapter(width=8), set()),  # Whose norms are trained too: that changes nothing for what was added.
        (Full(("decoder/layers/feed_forward/.*",)), {"wi", "gate", "wo"}),
        (Together((Adapter(width=8), Full(("decoder/layers/feed_forward/mlp/.*",)))), {"wi", "gate", "wo"}),
    ],
    ids=["prompt", "lora", "adapter and norms", "base weights", "together"],
)
def test_what_a_method_added_keeps_its_second_moment_whole(method, factored):
    """Adafactor factors weights of the base alone, whatever else is trained beside them."""
    _, (state, _, _) = abstract_step(method, optimizer=optimizers.Adafactor(min_dim_size_to_factor=8))
    named = trainable.named(state.tuned)
    matrices = [name for name, leaf in named.items() if leaf.ndim - optimizers.is_stacked(name) == 2 and min(leaf.shape[-2:]) >= 8]
    assert matrices or method == PROMPT
    statistics = next(part for part in jax.tree.leaves(state.optimizer_state, is_leaf=is_adafactor) if is_adafactor(part))
    assert {name.split("/")[-2] for name in statistics.row} == factored
    assert set(statistics.full) | set(statistics.row) == set(named)


def is_adafactor(part):
    return isinstance(part, optimizers.AdafactorState)


def test_a_batch_that_the_devices_cannot_share_out_is_refused():
    built = assembly.assemble(tiny_experiment())
    mesh = collections.namedtuple("Devices", "shape")({"data": 3})
    with pytest.raises(UserError, match="multiple of the mesh's 3 data devices, got 4"):
        training.trainer(tiny_experiment(mesh=Mesh(data=-1)), dataclasses.replace(built, mesh=mesh))


# What the program holds, from shapes alone: nothing is compiled and no weight is made.


def abstract_step(method, *, layers=2, optimizer=EXPERIMENT.optimizer, **config_changes):
    """The step as a function, with its arguments as shapes."""
    config = dataclasses.replace(CONFIG, num_encoder_layers=layers, num_decoder_layers=layers, **config_changes)

    def attached():
        model = T5(config, nnx.Rngs(params=0))
        method.attach(model, jax.random.key(0), vocabulary=None)
        return model

    model = nnx.eval_shape(attached)
    graphdef, tuned, frozen = trainable.split(model, method.trainable)
    tuned, frozen = (nnx.to_pure_dict(state) for state in (tuned, frozen))
    transform = programs.optimizer(tiny_experiment(method=method, optimizer=optimizer, gradient_clip_norm=1.0), model)
    state = programs.TrainState(jax.ShapeDtypeStruct((), jnp.int32), tuned, jax.eval_shape(transform.init, tuned))
    example = {"inputs": np.array([5, 6, 1]), "targets": np.array([7, 1])}
    prompt = method.layout
    batch = features.layout(
        [example] * ROWS,
        input_length=SOURCE - prompt.encoder_length,
        target_length=TARGET - prompt.decoder_length,
        prompt=prompt,
    )
    step = functools.partial(
        programs.train_step, graphdef=graphdef, transform=transform, seed=0, dropout_rate=0.1, z_loss=1e-4, label_smoothing=0.0
    )
    return step, (state, frozen, batch)


def products(step, arguments):
    """`(contracted sizes, result shape)` of every matrix product of a step."""
    found = []
    for equation in equations(jax.make_jaxpr(step)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            (left, _), _ = equation.params["dimension_numbers"]
            sizes = tuple(equation.invars[0].aval.shape[axis] for axis in left)
            found.append((sizes, equation.outvars[0].aval.shape))
    return found


def weight_gradients(step, arguments):
    """The products that sum over rows of the batch: gradients of matrices."""
    return [shape for sizes, shape in products(step, arguments) if ROWS in sizes]


def saved_numbers(step, arguments):
    """How many numbers loops over layers leave for the backward pass."""
    jaxpr = jax.make_jaxpr(step)(*arguments)
    return sum(
        math.prod(variable.aval.shape)
        for equation in equations(jaxpr.jaxpr)
        if equation.primitive.name == "scan" and not equation.params["reverse"]
        for variable in equation.outvars[equation.params["num_carry"] :]
    )


@pytest.mark.parametrize("remat", ["none", "products", "full"])
@pytest.mark.parametrize("stacks", ["encoder", "decoder", "both"])
def test_the_prompt_step_holds_no_weight_gradient(stacks, remat):
    step, arguments = abstract_step(Prompt(length=3, initializer=Uniform(), stacks=stacks), remat=remat)
    assert len(products(step, arguments)) > 2 * (ENCODER_MATRICES + DECODER_MATRICES)  # They are found where they are.
    assert weight_gradients(step, arguments) == []


@pytest.mark.parametrize("remat", ["none", "products", "full"])
def test_the_full_step_holds_one_gradient_for_each_matrix(remat):
    # A loop over layers stands once in the program.
    found = weight_gradients(*abstract_step(Full(), remat=remat))
    assert len(found) == ENCODER_MATRICES + DECODER_MATRICES + HEAD
    width, inner, attended = CONFIG.d_model, CONFIG.d_ff, CONFIG.num_heads * CONFIG.d_kv
    shapes = collections.Counter(tuple(sorted(shape)) for shape in found)
    assert shapes == {(attended, width): 12, (width, inner): 6, (width, CONFIG.vocab_size): 1}


@pytest.mark.parametrize("method", [PROMPT, Full()])
def test_what_is_computed_again_for_the_backward_pass_is_what_was_asked_for(method):
    steps = {remat: abstract_step(method, remat=remat, unroll_layers=False) for remat in ("none", "products", "full")}
    multiplied = {remat: len(products(*step)) for remat, step in steps.items()}
    assert multiplied["none"] == multiplied["products"] < multiplied["full"]
    left = {remat: saved_numbers(*step) for remat, step in steps.items()}
    assert left["full"] < left["products"] < left["none"]


def test_the_embedding_is_a_matrix_too_where_it_is_the_head():
    assert len(weight_gradients(*abstract_step(Full(), tied=True))) == ENCODER_MATRICES + DECODER_MATRICES + HEAD
    assert weight_gradients(*abstract_step(PROMPT, tied=True)) == []


def test_patterns_take_the_gradients_of_what_they_name_alone():
    assert len(weight_gradients(*abstract_step(Full(patterns=("decoder/.*",))))) == DECODER_MATRICES
    assert len(weight_gradients(*abstract_step(Full(patterns=("encoder/layers/feed_forward/.*",))))) == 3


@pytest.mark.parametrize("method", [PROMPT, Full()], ids=["prompt", "full"])
def test_the_program_does_not_grow_with_depth_where_layers_are_scanned(method):
    def size(layers, unroll):
        step, arguments = abstract_step(method, layers=layers, unroll_layers=unroll)
        return len(jax.jit(step).lower(*arguments).as_text().splitlines())

    assert size(2, False) == size(8, False)
    assert size(4, True) > size(2, True) + 100  # What is counted here does see depth.


def test_equations_do_not_grow_with_depth():
    counts = []
    for layers in (2, 8):
        step, arguments = abstract_step(PROMPT, layers=layers)
        counts.append(sum(1 for _ in equations(jax.make_jaxpr(step)(*arguments).jaxpr)))
    assert counts[0] == counts[1]
