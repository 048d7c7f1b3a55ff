"""The training step: a pure function, and the program that `jax.jit` makes of it, known from shapes alone.

The model is split once into a graph definition, what is tuned and what is frozen. The step differentiates with respect to what is tuned
only, Optax sees and checkpoints hold only that, and the frozen weights are an argument that is never donated or copied.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from prompt_tuning import assembly, losses, optimizers, sharding, trainable
from prompt_tuning.data import choices, features
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import Experiment
from prompt_tuning.methods.base import rate_factors
from prompt_tuning.models.layers import Tunable

Array = jax.Array
Batch = dict[str, Array]


class TrainState(NamedTuple):
    """All that changes from step to step, or its shapes. `step` counts the steps taken."""

    step: Any
    tuned: dict[str, Any]
    optimizer_state: Any


def optimizer(experiment: Experiment, model: nnx.Module) -> optax.GradientTransformation:
    """The Optax transformation of an experiment, whose method is on `model`.

    A parameter that a method added (`Tunable`) keeps its second moment whole, as a prompt does in the released code; one of the base's own
    has it factored, as T5's training does.
    """
    added = {name for name, variable in trainable.named_variables(model) if isinstance(variable, Tunable)}
    updates = -(-experiment.train_steps // experiment.accumulation_steps)
    transform = experiment.optimizer.transform(experiment.schedule.factor(updates), unfactored=added.__contains__)
    return optimizers.with_clipping_and_accumulation(
        optimizers.with_rate_factors(transform, rate_factors(experiment.method)),
        max_norm=experiment.gradient_clip_norm,
        accumulation_steps=experiment.accumulation_steps,
    )


def loss(
    model: Any,
    x_BTD: Array,
    batch: Batch,
    *,
    z_loss: float,
    label_smoothing: float,
    choice_losses: losses.ChoiceLosses | None,
    share: float,
) -> tuple[Array, dict[str, Array]]:
    """The loss of a batch and its parts, given what the model's head reads of it; see `train_step`.

    The logits of many tokens are never there at once, unless answer choices or a penalty ask for them.
    """
    targets, weights = batch["decoder_target_tokens"], batch["decoder_loss_weights"]
    if choice_losses is None and not losses.penalising(model):
        rows, length = targets.shape
        chunks = losses.chunks(rows, length, model.config.vocab_size, share=share)
        if chunks > 1:
            return losses.per_token_in_chunks(
                model.logits, x_BTD, targets, weights_BT=weights, chunks=chunks, label_smoothing=label_smoothing, z_loss=z_loss
            )
    logits = model.logits(x_BTD)
    if choice_losses is None:
        value, metrics = losses.per_token(logits, targets, weights_BT=weights, label_smoothing=label_smoothing, z_loss=z_loss)
    else:
        logits = logits.reshape(*targets.shape, -1)
        value, metrics = losses.of_choices(
            logits, targets, weights_BCT=weights, settings=choice_losses, label_smoothing=label_smoothing, z_loss=z_loss
        )
    added = losses.penalty(model, batch, logits)
    return (value, metrics) if added is None else (value + added, metrics | {"penalty": added})


def train_step(
    state: TrainState,
    frozen: dict[str, Any],
    batch: Batch,
    *,
    graphdef: Any,
    transform: optax.GradientTransformation,
    seed: int,
    dropout_rate: float,
    z_loss: float,
    label_smoothing: float,
    choice_losses: losses.ChoiceLosses | None = None,
    share: float = 1.0,
) -> tuple[TrainState, dict[str, Array]]:
    """One step on one batch: the new state, and what the weights before the step made of the batch.

    The loss is the mean over target tokens of the batch, what the answer choices of `data.choices.layout` add (`choice_losses`), and what
    the plugged-in modules ask for (`losses.penalty`). Dropout draws from the seed and the step alone, so a resumed run draws the same.
    `share` of the logits lies on one device, which decides on `losses.chunks`.
    """
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step) if dropout_rate else None

    def loss_of(tuned: dict[str, Any]) -> tuple[Array, dict[str, Array]]:
        model = nnx.merge(graphdef, tuned, frozen)
        x_BTD = model.hidden(batch, dropout_key=dropout_key)
        return loss(model, x_BTD, batch, z_loss=z_loss, label_smoothing=label_smoothing, choice_losses=choice_losses, share=share)

    (value, metrics), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.tuned)
    updates, optimizer_state = transform.update(gradient, state.optimizer_state, state.tuned)
    tuned = optax.apply_updates(state.tuned, updates)
    metrics |= {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return TrainState(state.step + 1, tuned, optimizer_state), metrics


@dataclasses.dataclass(frozen=True)
class Program:
    """The step of an experiment under `jit`, and the shapes of what it takes, each with the sharding that says where it lies.

    Attributes:
      step: (state, frozen, batch) -> (state, metrics); the state is donated.
      state, frozen: `jax.ShapeDtypeStruct`s with shardings: `step.lower(state, frozen, abstract_batch(...))` needs no data and no memory.
      start: makes the state before the first step from what is tuned, which becomes a part of it.
    """

    step: jax.stages.Wrapped
    state: TrainState
    frozen: dict[str, Any]
    start: Callable[[dict[str, Any]], TrainState]

    @property
    def places(self) -> TrainState:
        """The shardings of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.state)


def program(experiment: Experiment, built: assembly.Assembly) -> Program:
    """The program of an experiment, with explicit shardings; `built` may hold shapes in place of arrays.

    Raises UserError for a batch whose rows the mesh cannot share out evenly, and where a quantized kernel would be trained.
    """
    if experiment.batch_size % built.mesh.shape["data"]:
        raise UserError(
            f"batch_size: wanted a multiple of the mesh's {built.mesh.shape['data']} data devices, got {experiment.batch_size}; "
            "set BATCH_SIZE or sharding.Mesh.data"
        )
    if held := [row for row in built.rows if row.trained and not jnp.issubdtype(row.dtype, jnp.floating)]:
        raise UserError(
            f"{held[0].name} is quantized ({held[0].dtype}) and cannot be trained ({len(held)} such): set BASE_QUANTIZATION = 'none', "
            "or choose a method that leaves the kernels frozen"
        )
    transform = optimizer(experiment, nnx.merge(built.graphdef, built.tuned, built.frozen))
    everywhere, rows = sharding.everywhere(built.mesh), sharding.of_rows(built.mesh)
    tuned, frozen = (_shapes(values, _places(built, values)) for values in (built.tuned, built.frozen))
    # Optimizer state is made where it will lie, from shapes alone: nothing is copied or moved.
    slots = jax.eval_shape(transform.init, tuned)
    slots = _shapes(slots, optimizers.like_params(slots, tuned, built.places, otherwise=everywhere))
    state = TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere), tuned, slots)
    places = jax.tree.map(lambda leaf: leaf.sharding, state)

    def start(tuned: dict[str, Any]) -> TrainState:
        made = jax.jit(transform.init, out_shardings=places.optimizer_state)(tuned)
        return TrainState(sharding.put(np.int32(0), everywhere), tuned, made)

    step = functools.partial(
        train_step,
        graphdef=built.graphdef,
        transform=transform,
        seed=experiment.seed,
        dropout_rate=experiment.dropout_rate,
        z_loss=experiment.z_loss,
        label_smoothing=experiment.label_smoothing,
        choice_losses=experiment.choice_losses,
        share=1 / built.mesh.size,
    )
    compiled = jax.jit(
        step, in_shardings=(places, _places(built, built.frozen), rows), out_shardings=(places, everywhere), donate_argnums=0
    )
    return Program(compiled, state, frozen, start)


def _places(built: assembly.Assembly, values: dict[str, Any]) -> dict[str, Any]:
    return trainable.nested({name: built.places[name] for name in trainable.named(values)})


def _shapes(values: Any, places: Any) -> Any:
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), values, places)


def abstract_batch(experiment: Experiment, mesh: jax.sharding.Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of the experiment's training batches, known before there is data."""
    example = {"inputs": [features.EOS_ID], "targets": [features.EOS_ID], "task": 0}
    shape: Any = {
        "input_length": experiment.input_length,
        "target_length": experiment.target_length,
        "prompt": experiment.layout,
    }
    if experiment.choice_losses is None:
        one = features.layout_rows([[example]], packed=experiment.packed, **shape)
    else:
        one = choices.layout([example], num_choices=experiment.choice_losses.num_choices, **shape)
    rows = sharding.of_rows(mesh)
    return {
        name: jax.ShapeDtypeStruct((experiment.batch_size, *value.shape[1:]), value.dtype, sharding=rows) for name, value in one.items()
    }
