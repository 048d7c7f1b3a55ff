"""Multitask prompt tuning: the prompt of each task is one shared prompt times a matrix of rank one.

Paper: Wang et al. 2023, "Multitask Prompt Tuning Enables Parameter-Efficient Transfer Learning" (arXiv:2303.02861). Code: PEFT's
`MultitaskPromptTuning`.

What this file follows: P_k = P* o (u_k v_k^T), o entry by entry. Source training tunes P*, u and v of all tasks of a mixture together;
adaptation begins a target task's P* from there, and its u and v from the mean over source tasks, from one of them, or anew (section 3).
`rank` > 1 sums as many products, as PEFT does. P* and the tasks' vectors may learn at different speeds (`task_rate_factor`).

With `teachers`, prompts trained on each source task alone, the loss has further terms: what the model says with the teacher's prompt is
distilled into what it says with P_k, by the divergence KL(teacher || student) of each target token and the mean squared difference of the
encoder's outputs, both times `distillation`.

Deviations: u and v are drawn around 1, so that every task begins near P*; PEFT draws both from N(0, 0.02^2), with which every prompt begins
near zero (`initial = "zeros"`). The paper leaves open which hidden states are compared; these are computed once more for it, without
dropout.

Axes: B batch, S source length, T target length, V vocabulary, J tasks, P prompt length, D model width, R rank.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning import checkpoints, fields
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt, PromptRows, load_npy
from prompt_tuning.models.layers import Array, Fixed, Tunable
from prompt_tuning.models.t5 import T5
from prompt_tuning.trainable import Sources

_STD = 0.02
_SOCKET = "embed/prompt"


class SharedTimesTasks(nnx.Module):
    """What stands in the socket `Embed.prompt`."""

    def __init__(self, shared_PD: Array, left_JPR: Array, right_JRD: Array):
        self.shared = Tunable(shared_PD, axes=("prompt", "embed"))
        self.left = Tunable(left_JPR, axes=("tasks", "prompt", "rank"))
        self.right = Tunable(right_JRD, axes=("tasks", "rank", "embed"))

    def __call__(self) -> Array:
        """The rows of all tasks, one task after the other: [J * P, D]."""
        tasks_JPD = jnp.einsum("jpr,jrd->jpd", self.left[...], self.right[...])
        rows_JPD = jnp.broadcast_to(self.shared[...], tasks_JPD.shape) * tasks_JPD
        return rows_JPD.reshape(-1, rows_JPD.shape[-1])


class Taught(SharedTimesTasks):
    """What stands there while teachers are distilled."""

    def __init__(self, shared_PD: Array, left_JPR: Array, right_JRD: Array, teachers_JPD: Array, *, weight: float):
        super().__init__(shared_PD, left_JPR, right_JRD)
        self.teachers = Fixed(teachers_JPD, axes=("tasks", "prompt", "embed"))
        self.weight = weight

    def penalty(self, model: Any, batch: Mapping[str, Array], logits_BTV: Array) -> Array:
        """The weighted sum of both distances from the teacher, each a mean over what counts."""
        teacher = nnx.merge(*nnx.split(model))
        teacher.embed.prompt = PromptRows(self.teachers[...].reshape(-1, self.teachers.shape[-1]))
        taught_BTV, said_BTV = (jax.nn.log_softmax(logits.astype(jnp.float32)) for logits in (teacher(batch), logits_BTV))
        taught_BTV = jax.lax.stop_gradient(taught_BTV)
        divergence_BT = jnp.sum(jnp.exp(taught_BTV) * (taught_BTV - said_BTV), axis=-1)
        wanted_BSD, found_BSD = (_encoded(each, batch).astype(jnp.float32) for each in (teacher, model))
        distance_BS = jnp.mean(jnp.square(jax.lax.stop_gradient(wanted_BSD) - found_BSD), axis=-1)
        counted_BS = (batch["encoder_segment_ids"] > 0).astype(jnp.float32)
        return self.weight * (_mean(divergence_BT, batch["decoder_loss_weights"]) + _mean(distance_BS, counted_BS))


def _encoded(model: Any, batch: Mapping[str, Array]) -> Array:
    return model.encode(
        batch["encoder_input_tokens"],
        slots_BS=batch["encoder_prompt_slots"],
        segment_ids_BS=batch["encoder_segment_ids"],
        packed="encoder_positions" in batch,
    )


def _mean(x: Array, weights: Array) -> Array:
    return jnp.sum(x * weights) / jnp.maximum(jnp.sum(weights), 1.0)


@dataclasses.dataclass(frozen=True)
class MPT(Prompt):
    """A shared prompt times task matrices; further settings are those of `Prompt`, for the encoder alone.

    Attributes:
      length: P.
      initializer: of P*, unless `source` is given.
      tasks: J, the number of tasks in the training data; 1 for a target task.
      rank: R.
      initial: u and v are drawn around `ones` or `zeros`, standard deviation 0.02.
      source: the work folder of a source training, whose best checkpoint is begun from; the empty string for none.
      source_task: whose u and v: the `mean` over source tasks, the number of one, or `none` of them: drawn anew.
      task_rate_factor: the learning rate of u and v over that of P*.
      teachers: `.npy` files [P, D] of prompts trained on each task alone, in the order of the tasks; empty for no distillation.
      distillation: what the distances from the teachers are multiplied by.
    """

    tasks: int = 1
    rank: int = 1
    initial: Literal["ones", "zeros"] = "ones"
    source: str = ""
    source_task: Literal["mean", "none"] | int = "mean"
    task_rate_factor: float = 1.0
    teachers: tuple[str, ...] = ()
    distillation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tasks", "rank"):
            fields.check_count(f"MPT.{name}", getattr(self, name))
        if self.initial not in ("ones", "zeros"):
            raise UserError(f"MPT.initial: wanted 'ones' or 'zeros', got {self.initial!r}")
        number = isinstance(self.source_task, int) and not isinstance(self.source_task, bool) and self.source_task >= 0
        if not number and self.source_task not in ("mean", "none"):
            raise UserError(f"MPT.source_task: wanted 'mean', 'none' or the number of a task, got {self.source_task!r}")
        object.__setattr__(self, "teachers", (self.teachers,) if isinstance(self.teachers, str) else tuple(self.teachers))
        if self.teachers and len(self.teachers) != self.tasks:
            raise UserError(f"MPT.teachers: wanted none, or a prompt for each of {self.tasks} tasks, got {len(self.teachers)}")
        if not self.distillation >= 0:
            raise UserError(f"MPT.distillation: wanted 0 or more, got {self.distillation!r}")
        if self.stacks != "encoder":
            raise UserError(f"MPT.stacks: wanted 'encoder', got {self.stacks!r}")

    @property
    def layout(self) -> PromptLayout:
        """Length and placement, with a prompt for each task."""
        return PromptLayout(encoder_length=self.length, placement=self.placement, tasks=self.tasks)

    @property
    def rate_factors(self) -> Mapping[str, float]:
        """Those of u and v."""
        return {f"{_SOCKET}/(left|right)": self.task_rate_factor}

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts P*, u and v into the embedding's socket. Raises UserError where `source` does not fit."""
        keys = jax.random.split(key, 3)
        sources = super().attach(model, keys[0], vocabulary=vocabulary)
        embed: Any = model.embed  # type: ignore[attr-defined]
        shared_PD = embed.prompt()
        around = 1.0 if self.initial == "ones" else 0.0
        shapes = {"left": (self.tasks, self.length, self.rank), "right": (self.tasks, self.rank, shared_PD.shape[1])}
        left_JPR, right_JRD = (
            around + _STD * jax.random.normal(each, shape, jnp.float32) for each, shape in zip(keys[1:], shapes.values(), strict=True)
        )
        origin = {"shared": sources[f"{_SOCKET}/rows"]} | dict.fromkeys(shapes, f"initialiser normal, around {around}, std {_STD}")
        if around:
            left_JPR = left_JPR / self.rank  # R products around 1 sum to 1.
        if self.source:
            held = _source(self.source, length=self.length, rank=self.rank, width=shared_PD.shape[1])
            shared_PD = jnp.asarray(held["shared"])
            origin["shared"] = self.source
            if self.source_task != "none":
                left_JPR, right_JRD = (self._of_task(held[name]) for name in shapes)
                origin |= dict.fromkeys(shapes, f"{self.source}, task {self.source_task}")
        if self.teachers:
            if not isinstance(model, T5):
                raise UserError(
                    f"MPT.teachers are distilled into what an encoder gives; wanted an encoder-decoder, got {type(model).__name__}"
                )
            held_JPD = jnp.asarray(np.stack([load_npy(path, shared_PD.shape) for path in self.teachers]))
            embed.prompt = Taught(shared_PD, left_JPR, right_JRD, held_JPD, weight=self.distillation)
            origin["teachers"] = ", ".join(self.teachers)
        else:
            embed.prompt = SharedTimesTasks(shared_PD, left_JPR, right_JRD)
        return {f"{_SOCKET}/{name}": source for name, source in origin.items()}

    def _of_task(self, held: np.ndarray) -> Array:
        """The vectors of the source tasks as those of each of our tasks."""
        if isinstance(self.source_task, int) and self.source_task >= len(held):
            raise UserError(f"MPT.source_task: {self.source} holds tasks 0 to {len(held) - 1}, got {self.source_task}")
        own = held.mean(axis=0) if self.source_task == "mean" else held[self.source_task]
        return jnp.asarray(np.repeat(own[None], self.tasks, axis=0))


def _source(workdir: str, *, length: int, rank: int, width: int) -> dict[str, np.ndarray]:
    """`shared`, `left` and `right` of a run's best checkpoint."""
    held = checkpoints.read_run(workdir, MPT, where="MPT.source")
    parts = {name: held[f"{_SOCKET}/{name}"] for name in ("shared", "left", "right")}
    found = (*parts["shared"].shape, parts["left"].shape[2])
    if found != (length, width, rank):
        raise UserError(
            f"MPT.source {workdir!r}: wanted length {length}, width {width} and rank {rank}, got {found[0]}, {found[1]} and {found[2]}; "
            "set PROMPT_LENGTH and MPT.rank, or choose the model it was trained on"
        )
    return parts
