"""Adafactor as Lester et al. and T5 use it, AdamW, and learning-rate schedules, as Optax transformations.

Adafactor (Shazeer & Stern 2018, arXiv:1804.04235) is written out here and not taken from Optax, because the reproduction needs what
`optax.adafactor` has not: a decay that starts late, a prompt whose second moment is never factored, and statistics taken layer by layer
where the layers of a model are stacked in one array. The settings that matter, from Lester et al. 2021 (arXiv:2104.08691) and its code:

| field | prompt tuning, the paper | the released code | T5 model tuning |
|---|---|---|---|
| `learning_rate`, schedule | 0.3, constant | 0.3, constant | 1e-3, constant |
| `multiply_by_parameter_scale` | False | False | True |
| `weight_decay` | 1e-5 | 1e-5 | 0 |
| `step_offset` | 0 | 1_100_000 | 0 |

The released code resumes at the base's step 1,100,000 with a second moment of zero. The moment then takes in 1.5e-5 of each squared
gradient, so that it acts as a growing sum, clipping is always on, and every update has a root mean square of exactly the learning rate.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from prompt_tuning.errors import UserError

# From the name of a parameter ("encoder/layers/mlp/wi/kernel") to a decision about it.
NamePredicate = Callable[[str], bool]
PyTree = Any

_KINDS = ("constant", "linear", "cosine", "inverse_sqrt")


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What the learning rate is multiplied by at each step.

    Attributes:
      kind: `constant` is 1. `linear` and `cosine` fall from 1 to `final_frac` at the last step. `inverse_sqrt` is T5's pretraining
        schedule 1 / sqrt(max(step, warmup)), to be used with a learning rate of 1: its warm-up is a plateau.
      warmup_steps: steps in which the rate rises in a line, (step + 1) / warmup_steps, before the rest begins: no step has rate 0.
      warmup_frac: the same as a share of all steps, used where `warmup_steps` is 0.
      final_frac: what `linear` and `cosine` fall to.
    """

    kind: str = "constant"
    warmup_steps: int = 0
    warmup_frac: float = 0.0
    final_frac: float = 0.0

    def factor(self, total_steps: int) -> optax.Schedule:
        """The factor as a function of the zero-based step.

        Raises:
          UserError: for an unknown kind, or a warm-up that does not leave a step.
        """
        if self.kind not in _KINDS:
            raise UserError(f"Schedule.kind: unknown schedule; wanted one of {', '.join(_KINDS)}, got {self.kind!r}")
        if self.warmup_steps < 0 or not 0.0 <= self.warmup_frac <= 1.0:
            raise UserError(
                "Schedule: a negative warm-up, or one longer than the run; wanted warmup_steps >= 0 and warmup_frac in [0, 1], "
                f"got {self.warmup_steps} and {self.warmup_frac}"
            )
        warmup = self.warmup_steps or round(self.warmup_frac * total_steps)
        if self.kind in ("linear", "cosine") and warmup >= total_steps:
            raise UserError(
                f"Schedule: the warm-up takes the whole run; wanted fewer than {total_steps} steps, got {warmup}: "
                "lower Schedule.warmup_steps or raise TRAIN_STEPS"
            )

        def factor(step: jax.typing.ArrayLike) -> jax.Array:
            step = jnp.asarray(step, jnp.float32)
            if self.kind == "inverse_sqrt":
                return jax.lax.rsqrt(jnp.maximum(step, max(warmup, 1)))
            done = jnp.clip((step - warmup) / max(total_steps - warmup, 1), 0.0, 1.0)
            if self.kind == "linear":
                value = 1.0 - (1.0 - self.final_frac) * done
            elif self.kind == "cosine":
                value = self.final_frac + (1.0 - self.final_frac) * 0.5 * (1.0 + jnp.cos(math.pi * done))
            else:
                value = jnp.ones_like(step)
            return jnp.where(step < warmup, (step + 1.0) / max(warmup, 1), value)

        return factor


class AdafactorState(NamedTuple):
    """Statistics by parameter name, float32. A parameter stands in `full`, or in both `row` and `column`."""

    steps: jax.Array
    full: dict[str, jax.Array]
    row: dict[str, jax.Array]
    column: dict[str, jax.Array]
    momentum: dict[str, jax.Array]


def is_stacked(name: str) -> bool:
    """Whether a parameter holds all layers on its first axis: `layers` stands in its name, without a layer's number after it."""
    parts = name.split("/")
    return any(part == "layers" and not following.isdigit() for part, following in zip(parts, [*parts[1:], ""], strict=True))


def never(name: str) -> bool:
    """The predicate that holds for no parameter."""
    return False


@dataclasses.dataclass(frozen=True)
class Adafactor:
    """Adafactor with T5X's details (Shazeer & Stern 2018, algorithms 4 and 5; Lester et al. 2021, section 2.2 and released code).

    Attributes:
      learning_rate: the step size, times the schedule; relative to the parameter's scale if `multiply_by_parameter_scale`.
      weight_decay: each step ends with p - weight_decay * p_before, not multiplied by the learning rate.
      multiply_by_parameter_scale: multiply the step by max(RMS of the parameter, `parameter_scale_floor`).
      parameter_scale_floor: epsilon_2 of the paper.
      clipping_threshold: the largest RMS of an update before the learning rate; None for no clipping.
      decay_rate: the second moment keeps 1 - t ** -decay_rate of itself at step t = 1, 2, ...
      step_offset: added to t: the steps that the run pretends to have behind it while the second moment starts at zero. 0 is the
        paper's reading, 1_100_000 what the released prompt-tuning code does.
      momentum: beta_1, or None for none.
      factored: keep row and column means for matrices.
      min_dim_size_to_factor: the smallest side a matrix must have for that.
      epsilon: epsilon_1 of the paper, added to squared gradients.
    """

    learning_rate: float = 0.3
    weight_decay: float = 1e-5
    multiply_by_parameter_scale: bool = False
    parameter_scale_floor: float = 1e-3
    clipping_threshold: float | None = 1.0
    decay_rate: float = 0.8
    step_offset: int = 0
    momentum: float | None = None
    factored: bool = True
    min_dim_size_to_factor: int = 128
    epsilon: float = 1e-30

    def transform(
        self, schedule: optax.Schedule, *, unfactored: NamePredicate = never, stacked: NamePredicate = is_stacked
    ) -> optax.GradientTransformation:
        """The Optax transformation; its updates are to be added to the parameters.

        Args:
          schedule: multiplies the learning rate, by zero-based step (`Schedule.factor`).
          unfactored: names of parameters whose second moment is kept whole whatever their size, as a prompt's is in the released code.
          stacked: names of parameters with a leading layer axis: every statistic is taken per layer, so that stacked and
            separate layers get equal updates.
        """

        def is_factored(name: str, shape: tuple[int, ...]) -> bool:
            layer_shape = shape[1:] if stacked(name) else shape
            return self.factored and not unfactored(name) and len(layer_shape) == 2 and min(layer_shape) >= self.min_dim_size_to_factor

        def init(params: PyTree) -> AdafactorState:
            named = _named(params)
            factored = {name: x for name, x in named.items() if is_factored(name, x.shape)}
            return AdafactorState(
                steps=jnp.zeros((), jnp.int32),
                full={name: jnp.zeros(x.shape, jnp.float32) for name, x in named.items() if name not in factored},
                row={name: jnp.zeros(x.shape[:-1], jnp.float32) for name, x in factored.items()},
                column={name: jnp.zeros(x.shape[:-2] + x.shape[-1:], jnp.float32) for name, x in factored.items()},
                momentum={name: jnp.zeros(x.shape, jnp.float32) for name, x in named.items() if self.momentum is not None},
            )

        def update(grads: PyTree, state: AdafactorState, params: PyTree = None) -> tuple[PyTree, AdafactorState]:
            assert params is not None, "Adafactor reads the parameters"
            t = (state.steps + 1).astype(jnp.float32) + self.step_offset
            # The share of the new squared gradient. Written so, and not as 1 - (1 - t^-d), it keeps its digits at a late t.
            fresh = t**-self.decay_rate
            rate = self.learning_rate * schedule(state.steps)
            full, row, column, momentum = dict(state.full), dict(state.row), dict(state.column), dict(state.momentum)
            named_params, updates = _named(params), {}
            for name, grad in _named(grads).items():
                param = named_params[name].astype(jnp.float32)
                grad = grad.astype(jnp.float32)
                within_layer = tuple(range(1 if stacked(name) else 0, grad.ndim))
                squared = jnp.square(grad) + self.epsilon
                if name in full:
                    full[name] = (1.0 - fresh) * full[name] + fresh * squared
                    step = grad * jax.lax.rsqrt(full[name])
                else:
                    row[name] = (1.0 - fresh) * row[name] + fresh * jnp.mean(squared, axis=-1)
                    column[name] = (1.0 - fresh) * column[name] + fresh * jnp.mean(squared, axis=-2)
                    relative_row = row[name] / jnp.mean(row[name], axis=-1, keepdims=True)
                    step = grad * jax.lax.rsqrt(relative_row)[..., :, None] * jax.lax.rsqrt(column[name])[..., None, :]
                if self.clipping_threshold is not None:
                    step = step / jnp.maximum(1.0, _rms(step, within_layer) / self.clipping_threshold)
                step = rate * step
                if self.multiply_by_parameter_scale:
                    step = step * jnp.maximum(_rms(param, within_layer), self.parameter_scale_floor)
                if self.momentum is not None:
                    step = momentum[name] = self.momentum * momentum[name] + (1.0 - self.momentum) * step
                updates[name] = (-step - self.weight_decay * param).astype(named_params[name].dtype)
            return _unnamed(updates, grads), AdafactorState(state.steps + 1, full, row, column, momentum)

        return optax.GradientTransformation(init, update)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, which is multiplied by the learning rate (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Attributes:
      learning_rate: the step size, times the schedule.
      b1, b2, epsilon: of Adam.
      weight_decay: each step takes learning_rate * weight_decay * p away from p.
      decay_vectors: decay vectors too (layer-norm scales, biases), and not only matrices.
    """

    learning_rate: float = 1e-4
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decay_vectors: bool = False

    def transform(
        self, schedule: optax.Schedule, *, unfactored: NamePredicate = never, stacked: NamePredicate = is_stacked
    ) -> optax.GradientTransformation:
        """The Optax transformation; takes the arguments of `Adafactor.transform` (`unfactored` says nothing to Adam)."""
        del unfactored

        def decays(params: PyTree) -> PyTree:
            mask = {name: self.decay_vectors or x.ndim - stacked(name) >= 2 for name, x in _named(params).items()}
            return _unnamed(mask, params)

        return optax.adamw(
            lambda count: self.learning_rate * schedule(count),
            b1=self.b1,
            b2=self.b2,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
            mask=decays,
        )


def with_clipping_and_accumulation(
    transform: optax.GradientTransformation, *, max_norm: float | None = None, accumulation_steps: int = 1
) -> optax.GradientTransformation:
    """Clips the global norm of the gradient to `max_norm`, and steps once in `accumulation_steps` calls with the mean gradient.

    Clipping sees the accumulated mean. Only calls that end a cycle count as steps of the schedule and of the optimizer; the others
    give updates of zero.
    """
    if accumulation_steps < 1:
        raise UserError(f"accumulation_steps: wanted at least 1, got {accumulation_steps}")
    if max_norm is not None:
        transform = optax.chain(optax.clip_by_global_norm(max_norm), transform)
    if accumulation_steps > 1:
        transform = optax.MultiSteps(transform, every_k_schedule=accumulation_steps).gradient_transformation()
    return transform


def with_rate_factors(transform: optax.GradientTransformation, factors: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates of some parameters, and so their learning rate and their weight decay.

    Args:
      transform: of all parameters; what it keeps stays as it was.
      factors: regular expression for whole names -> factor; the first that matches counts, other parameters keep their updates.

    Raises UserError, when the state is made, for a pattern that matches no parameter.
    """
    if not factors:
        return transform

    def factor(name: str) -> float:
        return next((value for pattern, value in factors.items() if re.fullmatch(pattern, name)), 1.0)

    def init(params: PyTree) -> PyTree:
        names = list(_named(params))
        for pattern in factors:
            if not any(re.fullmatch(pattern, name) for name in names):
                raise UserError(f"rate factors: pattern {pattern!r} matches no trained parameter; there are {', '.join(names[:3])}")
        return transform.init(params)

    def update(grads: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, state = transform.update(grads, state, params)
        return jax.tree_util.tree_map_with_path(lambda path, x: x * factor(_name(path)), updates), state

    return optax.GradientTransformation(init, update)


def like_params(state: PyTree, params: PyTree, per_param: Mapping[str, Any], *, otherwise: Any) -> PyTree:
    """Gives each leaf of an optimizer state what its parameter has in `per_param`, say a sharding.

    A leaf belongs to a parameter if its path ends in the parameter's name and its shape is the parameter's; counters, factored
    statistics and all else get `otherwise`.

    Args:
      state: the optimizer state, or its shapes.
      params: the parameters, or their shapes.
      per_param: by parameter name, as `jax.tree_util.keystr(path, simple=True, separator="/")` gives it.
      otherwise: for leaves that belong to no parameter.

    Returns:
      A tree of the structure of `state`.
    """
    named = _named(params)
    by_length = sorted(named, key=len, reverse=True)

    def find(path: tuple[Any, ...], leaf: Any) -> Any:
        full_name = "/" + _name(path)
        owner = next((name for name in by_length if full_name.endswith("/" + name) and leaf.shape == named[name].shape), None)
        return otherwise if owner is None else per_param[owner]

    return jax.tree_util.tree_map_with_path(find, state)


def _rms(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(tree: PyTree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _unnamed(named: Mapping[str, Any], like: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: named[_name(path)], like)
