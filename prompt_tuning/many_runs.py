"""Several runs in one program: K prompts, each with its own data, optimizer and step number, over one frozen base.

The runs' batches go through the model as one, so that a product with a frozen kernel is one product over all rows; each run's loss is the
mean over its own target tokens, and no run's loss depends on another's variables: the gradient of the sum of losses is each run's own.

Where a prompt is all that is tuned, the prompts stand one below the other and a row's slots name its run's rows (`data.features`). Anything
else is mapped over the runs with `jax.vmap`, as is a prompt under dropout, so that each run draws as it would alone. (Prompts are not
mapped because twenty steps of eight over T5 v1.1 small, command to end on two cores, took 75 s as it is and 126 s mapped.)

Prompts of different lengths are stacked with rows that no slot names, and their batches with padding. The optimizer sees each run's
variables in their own shapes: a statistic over a whole prompt, such as Adafactor's clipping, counts no row that is not there.

Axes: K runs, B batch rows of a run, T target length, V vocabulary, P the longest prompt, D model width.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from prompt_tuning import losses, programs, sharding, trainable
from prompt_tuning.assembly import Assembly
from prompt_tuning.data.features import PAD_ID, TOKEN_SLOT
from prompt_tuning.experiment import Experiment
from prompt_tuning.methods.prompt import PromptRows
from prompt_tuning.models.layers import Fixed
from prompt_tuning.programs import TrainState

Array = jax.Array
ROWS = "embed/prompt/rows"


def train_step(
    states: tuple[TrainState, ...],
    frozen: dict[str, Any],
    held_K: Mapping[str, Array],
    batch_KB: Mapping[str, Array],
    going_K: Array,
    *,
    graphdef: Any,
    transforms: Sequence[optax.GradientTransformation],
    seeds: Sequence[int],
    dropout_rate: float,
    z_loss: float,
    label_smoothing: float,
    choice_losses: losses.ChoiceLosses | None = None,
    share: float = 1.0,
) -> tuple[tuple[TrainState, ...], tuple[dict[str, Array], ...]]:
    """One step of K runs: what `programs.train_step` does for each.

    Args:
      states: of the runs; their variables may differ in the length of prompts, in nothing else.
      frozen: the base, which all share.
      held_K: by name what each run's method holds fixed (`layers.Fixed`), the runs on the first axis.
      batch_KB: the runs' batches, `stacked_batch`.
      going_K: bool; a run where it is False keeps the state it has.
      transforms, seeds: of each run.
      graphdef, dropout_rate, z_loss, label_smoothing, choice_losses, share: of all; see `programs.train_step`.

    Returns:
      The new states, and the metrics of each run.
    """
    parts: Any = {"z_loss": z_loss, "label_smoothing": label_smoothing, "choice_losses": choice_losses, "share": share * len(states)}
    named = [trainable.named(state.tuned) for state in states]
    merged = (
        list(named[0]) == [ROWS]
        and not (held_K or dropout_rate)
        and type(nnx.merge(graphdef, states[0].tuned, frozen).embed.prompt) is PromptRows
    )
    keys_K = jnp.stack([jax.random.fold_in(jax.random.key(seed), state.step) for seed, state in zip(seeds, states, strict=True)])

    def model_of(tuned: Mapping[str, Array], held: Mapping[str, Array]) -> Any:
        return nnx.merge(graphdef, trainable.nested({**tuned, **held}), frozen)

    def hidden_of(tuned: Mapping[str, Array], held: Mapping[str, Array], batch: Mapping[str, Array], key: Array) -> Array:
        return model_of(tuned, held).hidden(batch, dropout_key=key if dropout_rate else None)

    def loss_of(tuned_K: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        if merged:
            x_BK, axis = _merged(lambda rows, batch: hidden_of(rows, {}, batch, keys_K[0]), tuned_K[ROWS], batch_KB), 1
        else:
            x_BK, axis = jax.vmap(hidden_of)(tuned_K, held_K, batch_KB, keys_K), 0

        def of_run(x_BTD: Array, tuned: Any, held: Any, batch: Any) -> tuple[Array, dict[str, Array]]:
            return programs.loss(model_of(tuned, held), x_BTD, batch, **parts)

        loss_K, metrics_K = jax.vmap(of_run, in_axes=(axis, 0, 0, 0))(x_BK, tuned_K, held_K, batch_KB)
        return jnp.sum(loss_K), metrics_K | {"loss": loss_K}

    gradient_K, metrics_K = jax.grad(loss_of, has_aux=True)(stacked(named))
    updated, metrics = [], []
    for run, (state, transform, own) in enumerate(zip(states, transforms, named, strict=True)):
        gradient = trainable.nested({name: gradient_K[name][run][tuple(map(slice, value.shape))] for name, value in own.items()})
        updates, slots = transform.update(gradient, state.optimizer_state, state.tuned)
        new = TrainState(state.step + 1, optax.apply_updates(state.tuned, updates), slots)
        updated.append(jax.tree.map(functools.partial(jnp.where, going_K[run]), new, state))
        metrics.append({name: value[run] for name, value in metrics_K.items()} | {"gradient_norm": optax.tree.norm(gradient)})
    return tuple(updated), tuple(metrics)


def _merged(run: Callable[..., Array], rows_KPD: Array, batch_KB: Mapping[str, Array]) -> Array:
    """What the head reads [B, K, T, D] of all rows as one batch, in which row b * K + k is row b of run k: devices share out B as they
    would.
    """
    runs, length, width = rows_KPD.shape

    def laid(name: str, value: Array) -> Array:
        if name.endswith("prompt_slots"):
            first_K = jnp.arange(runs, dtype=value.dtype) * length
            value = jnp.where(value >= 0, value + first_K.reshape(-1, *[1] * (value.ndim - 1)), value)
        value = jnp.swapaxes(value, 0, 1)
        return value.reshape(-1, *value.shape[2:])

    x_BTD = run({ROWS: rows_KPD.reshape(-1, width)}, {name: laid(name, value) for name, value in batch_KB.items()})
    return x_BTD.reshape(-1, runs, *x_BTD.shape[1:])


def stacked(named: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Variables of several runs by name, the runs on a new first axis; shorter ones end in zeros."""

    def padded(value: Array, shape: Sequence[int]) -> Array:
        return jnp.pad(value, [(0, most - size) for most, size in zip(shape, value.shape, strict=True)])

    most = {name: np.max([one[name].shape for one in named], axis=0) for name in named[0]}
    return {name: jnp.stack([padded(one[name], shape) for one in named]) for name, shape in most.items()}


def stacked_batch(batches: Sequence[Mapping[str, np.ndarray]], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, np.ndarray]:
    """The batches of K runs as arrays [K, B, ...] of these shapes; rows that are too short end in padding."""
    made = {}
    for name, shape in shapes.items():
        filling = TOKEN_SLOT if name.endswith("prompt_slots") else PAD_ID if name.endswith("tokens") else 0
        whole = made[name] = np.full(shape.shape, filling, shape.dtype)
        for run, batch in enumerate(batches):
            whole[run][tuple(slice(size) for size in batch[name].shape)] = batch[name]
    return made


Step = Callable[[tuple[TrainState, ...], Sequence[Mapping[str, np.ndarray]], Sequence[bool]], Any]


def program(experiments: Sequence[Experiment], builts: Sequence[Assembly], alone: Sequence[programs.Program]) -> Step:
    """Compiles the step of runs of one form (`sweep_groups.Forms`).

    Args:
      experiments, builts: of the runs; `assembly.assemble_several` gives them one base.
      alone: the program that each would have alone.

    Returns:
      A function (states, batches, going) -> (states, metrics of each): of each run its state, which is donated, its batch (NumPy), and
      whether the step is its.
    """
    first, mesh = experiments[0], builts[0].mesh
    everywhere, rows = sharding.everywhere(mesh), NamedSharding(mesh, PartitionSpec(None, sharding.TABLE["batch"]))
    fixed = fixed_names(builts[0])
    held = [{name: value for name, value in trainable.named(built.frozen).items() if name in fixed} for built in builts]
    held_K = {name: sharding.put(value, everywhere) for name, value in stacked(held).items()}
    frozen = trainable.nested({name: value for name, value in trainable.named(builts[0].frozen).items() if name not in fixed})
    frozen_places = jax.tree.map(lambda leaf: leaf.sharding, frozen)
    of_runs = [programs.abstract_batch(experiment, mesh) for experiment in experiments]
    shapes = {
        name: jax.ShapeDtypeStruct((len(of_runs), *np.max([one[name].shape for one in of_runs], axis=0)), value.dtype, sharding=rows)
        for name, value in of_runs[0].items()
    }
    places = tuple(one.places for one in alone)
    step = functools.partial(
        train_step,
        graphdef=builts[0].graphdef,
        transforms=[
            programs.optimizer(experiment, nnx.merge(built.graphdef, built.tuned, built.frozen))
            for experiment, built in zip(experiments, builts, strict=True)
        ],
        seeds=[experiment.seed for experiment in experiments],
        dropout_rate=first.dropout_rate,
        z_loss=first.z_loss,
        label_smoothing=first.label_smoothing,
        choice_losses=first.choice_losses,
        share=1 / mesh.size,
    )
    jitted = jax.jit(
        step,
        in_shardings=(places, frozen_places, everywhere, rows, everywhere),
        out_shardings=(places, everywhere),
        donate_argnums=0,
    )
    going_K = jax.ShapeDtypeStruct((len(of_runs),), bool, sharding=everywhere)
    compiled = jitted.lower(tuple(one.state for one in alone), frozen, held_K, shapes, going_K).compile()

    def take_step(states: tuple[TrainState, ...], batches: Sequence[Mapping[str, np.ndarray]], going: Sequence[bool]) -> Any:
        batch_KB = {name: jax.device_put(value, rows) for name, value in stacked_batch(batches, shapes).items()}
        return compiled(states, frozen, held_K, batch_KB, jax.device_put(np.asarray(going), everywhere))

    return take_step


def fixed_names(built: Assembly) -> frozenset[str]:
    """The values that a method added and holds fixed."""
    model = nnx.merge(built.graphdef, built.tuned, built.frozen)
    return frozenset(name for name, variable in trainable.named_variables(model) if isinstance(variable, Fixed))
