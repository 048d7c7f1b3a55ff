"""Batches whose rows belong to different tasks, each tuned by itself over one frozen base.

The model is mapped over the rows of a batch: every row sees the tuned variables of its own task, and all rows share the frozen ones. A
product with a frozen kernel stays one product over all rows; what a method plugged in becomes a product of each row with its own variables.
So prompts, prefixes, LoRA, IA3 and adapters mix alike, in training, in ranking and in generation, and no method knows of it.

Tuned variables of J tasks are one tree, `stacked`, each array with the tasks on its first axis; the rows' tasks are `task_ids` [B].

Axes: B batch, J tasks, T target length, V vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from prompt_tuning import losses, trainable
from prompt_tuning.caches import row_axis
from prompt_tuning.errors import UserError

Array = jax.Array
Batch = Mapping[str, Any]


def stacked(tuned: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The tuned variables of several tasks as one tree with a leading task axis.

    Raises UserError where they are not of one method with the same sizes.
    """
    if not tuned:
        raise UserError("mixed tasks: wanted the tuned parameters of at least one task, got none")
    flat = [trainable.named(one) for one in tuned]
    for number, one in enumerate(flat):
        shapes, first = ({name: tuple(value.shape) for name, value in each.items()} for each in (one, flat[0]))
        if shapes != first:
            name = min(name for name in shapes | first if shapes.get(name) != first.get(name))
            raise UserError(
                f"mixed tasks: task {number} has {name} of shape {shapes.get(name)}, task 0 of {first.get(name)}; "
                "wanted tasks tuned by one method with the same sizes"
            )
    return trainable.nested({name: jnp.stack([one[name] for one in flat]) for name in flat[0]})


class MixedTasks:
    """Several tuned models on one base, called as one model: row b of a batch runs through the model of task `task_ids_B[b]`.

    Args:
      graphdef, frozen: of `trainable.split`, the same for all tasks.
      tuned: of `stacked`.
      task_ids_B: int32, 0 <= id < J.
    """

    def __init__(self, graphdef: Any, tuned: Any, frozen: Any, task_ids_B: Array):
        self._graphdef, self._tuned, self._frozen = graphdef, tuned, frozen
        self._task_ids_B = task_ids_B

    def __call__(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """Logits [B, T, V], as of the model; each row draws dropout from a key of its own."""
        keys_B = None if dropout_key is None else jax.random.split(dropout_key, self._task_ids_B.shape[0])

        def run(model: Any, own: Batch, key: Array | None) -> Array:
            return model(own, dropout_key=None if key is None else key[0])

        return self._mapped(run, self._task_ids_B, dict(batch), keys_B)

    def encode(self, tokens_BS: Array, *, segment_ids_BS: Array, slots_BS: Array | None = None) -> Any:
        """What the model's `encode` gives."""

        def run(model: Any, tokens: Array, segments: Array, slots: Array | None) -> Any:
            return model.encode(tokens, segment_ids_BS=segments, slots_BS=slots)

        return self._mapped(run, self._task_ids_B, tokens_BS, segment_ids_BS, slots_BS)

    def init_cache(self, encoded: Any, segment_ids_BS: Array, *, length: int) -> dict[str, Array]:
        """The model's cache, with `task_ids` [B] in it: rows taken from it keep their tasks."""
        made = self._mapped(
            lambda model, own, segments: model.init_cache(own, segments, length=length), self._task_ids_B, encoded, segment_ids_BS
        )
        return made | {"task_ids": self._task_ids_B}

    def decode_step(self, tokens_BT: Array, cache: dict[str, Array], *, slots_BT: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """As the model's, for the rows of the cache."""
        task_ids_B = cache["task_ids"]
        rest = {name: value for name, value in cache.items() if name != "task_ids"}

        def run(model: Any, tokens: Array, own: dict[str, Array], slots: Array | None) -> Any:
            return model.decode_step(tokens, own, slots_BT=slots)

        logits_BTV, rest = self._mapped(run, task_ids_B, tokens_BT, rest, slots_BT)
        return logits_BTV, rest | {"task_ids": task_ids_B}

    def _mapped(self, run: Callable[..., Any], task_ids_B: Array, *rows: Any) -> Any:
        """`run(model, *rows)` of every row with the model of its task, as batches of one."""

        def alone(tuned: Any, *own: Any) -> Any:
            model = nnx.merge(self._graphdef, tuned, self._frozen)
            made = run(model, *(_over(_expanded, each) for each in own))
            return _over(_squeezed, made)

        own_B = jax.tree.map(lambda value: value[task_ids_B], self._tuned)
        in_axes = (0, *(_over(_axis, each) for each in rows))
        shape = jax.eval_shape(alone, jax.tree.map(lambda value: value[0], own_B), *(_over(_first, each) for each in rows))
        return jax.vmap(alone, in_axes=in_axes, out_axes=_over(_axis, shape))(own_B, *rows)


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Says in place of a graph definition that the tuned variables are those of several tasks, `stacked`."""

    graphdef: Any


def model_of(graphdef: Any, tuned: Any, frozen: Any, batch: Batch) -> Any:
    """The model to run a batch through: the one there is, or where the graph definition is `Mixed` each row's own."""
    if isinstance(graphdef, Mixed):
        return MixedTasks(graphdef.graphdef, tuned, frozen, jnp.asarray(batch["task_ids"]))
    return nnx.merge(graphdef, tuned, frozen)


def train_step(
    state: Any,
    frozen: dict[str, Any],
    batch: Batch,
    *,
    graphdef: Any,
    transform: optax.GradientTransformation,
    seed: int = 0,
    dropout_rate: float = 0.0,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    fixed: Mapping[str, Any] | None = None,
) -> tuple[Any, dict[str, Array]]:
    """One step of J tasks on one batch that has `task_ids`: what J steps of `programs.train_step` on the rows of each would do.

    Args:
      state: a `programs.TrainState` whose `tuned` is `stacked` and whose optimizer state is `jax.vmap(transform.init)` of it.
      frozen, batch, and the rest: as of `programs.train_step`.
      fixed: `stacked` values that the method holds fixed (`layers.Fixed`), where tasks differ in them, such as what a wayward prompt is
        kept near; `frozen` is then without them.

    Returns:
      The new state and the metrics, each [J]. A task without a row in the batch keeps what it has; its metrics are 0.

    A method's penalty is each task's own, of a batch in which the other tasks' rows are padding: one that runs the model once more, such as
    a distillation, does so J times.
    """
    num_tasks = jax.tree.leaves(state.tuned)[0].shape[0]
    task_ids_B = batch["task_ids"]
    present_J = jnp.zeros(num_tasks, bool).at[task_ids_B].set(True)
    held = trainable.named(fixed or {})
    dropout_key = jax.random.fold_in(jax.random.key(seed), state.step) if dropout_rate else None

    def loss_of(tuned: Any) -> tuple[Array, dict[str, Array]]:
        everything = trainable.nested(trainable.named(tuned) | held)
        logits_BTV = MixedTasks(graphdef, everything, frozen, task_ids_B)(batch, dropout_key=dropout_key)

        def of_task(number: Array, own: Any) -> dict[str, Array]:
            alone = _of_task(batch, task_ids_B == number)
            loss, metrics = losses.per_token(
                logits_BTV,
                batch["decoder_target_tokens"],
                weights_BT=alone["decoder_loss_weights"],
                label_smoothing=label_smoothing,
                z_loss=z_loss,
            )
            added = losses.penalty(nnx.merge(graphdef, own, frozen), alone, logits_BTV)
            if added is None:
                return metrics | {"loss": loss}
            added = jnp.where(present_J[number], added, 0.0)
            return metrics | {"loss": loss + added, "penalty": added}

        metrics = jax.vmap(of_task)(jnp.arange(num_tasks), everything)
        # No task's loss depends on another's variables: the gradient of the sum is each task's own.
        return jnp.sum(metrics["loss"]), metrics

    gradient, metrics = jax.grad(loss_of, has_aux=True)(state.tuned)
    updates, optimizer_state = jax.vmap(transform.update)(gradient, state.optimizer_state, state.tuned)
    tuned = optax.apply_updates(state.tuned, updates)

    def where_present(new: Array, old: Array) -> Array:
        return jnp.where(present_J.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    kept = jax.tree.map(where_present, (tuned, optimizer_state), (state.tuned, state.optimizer_state))
    metrics["gradient_norm"] = jax.vmap(optax.tree.norm)(gradient)
    return type(state)(state.step + 1, *kept), metrics


def _of_task(batch: Batch, here_B: Array) -> dict[str, Array]:
    """The batch with the rows of other tasks as padding."""
    counted = {name for name in batch if name.endswith(("segment_ids", "loss_weights"))}
    return {name: jnp.where(here_B[:, None], value, 0) if name in counted else value for name, value in batch.items() if name != "task_ids"}


def _over(what: Callable[[Any, int | None], Any], tree: Any) -> Any:
    """`what(value, axis)` for every array of batches and caches, with the axis on which its rows stand."""

    def is_cache(part: Any) -> bool:
        return isinstance(part, dict) and "filled" in part

    def at(part: Any) -> Any:
        return {name: what(value, row_axis(name)) for name, value in part.items()} if is_cache(part) else what(part, 0)

    return jax.tree.map(at, tree, is_leaf=is_cache)


def _axis(value: Any, axis: int | None) -> int | None:
    del value
    return axis


def _first(value: Array, axis: int | None) -> Array:
    return value if axis is None else jnp.take(jnp.asarray(value), 0, axis=axis)


def _expanded(value: Array, axis: int | None) -> Array:
    return value if axis is None else jnp.expand_dims(value, axis)


def _squeezed(value: Array, axis: int | None) -> Array:
    return value if axis is None else jnp.squeeze(value, axis)
