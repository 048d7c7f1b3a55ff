"""Multi-task prompts: a prompt shared by all tasks, and one for each task, made into the prompt of each task.

Code: google-research/prompt-tuning, extended/multitask_prompts.py; no paper describes it.

What this file follows, with P shared rows and J tasks:

| `combine` | shared | of each task | the prompt of a task |
|---|---|---|---|
| `add` | [P, D] | [P, D] | their sum |
| `concatenate` | [P, D] | [`task_length`, D] | the shared rows, then the task's |
| `concatenate_features` | [P, D - `task_features`] | [P, `task_features`] | each shared row, then the task's entries |
| `project` | [P, `shared_features`] | a matrix [`shared_features`, D] and a bias [D] | each shared row times the matrix, plus the bias |

Which task an example is from is a number beside it (`data.features`), its task's place in the training data; the released code reads it
from the first token of the input, which must then be `<extra_id_j>`.

`released | fixed` switches what the released configuration gets wrong: its pattern of trained parameters misses the shared prompt, which
stays as it was drawn, and prompt positions see only those before them. `fixed` trains both parts, and all positions see each other. The
released code draws both parts from [0, 0.5); so does `released` here for the tasks' (the initialiser says it for the shared part: `Uniform`
has a switch of its own), and `fixed` from [-0.5, 0.5].

Axes: J tasks, P prompt length, D model width, S source length.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Initializer, Prompt, SampledVocabulary, Uniform
from prompt_tuning.models.layers import MASKED, Array, Fixed, Tunable
from prompt_tuning.trainable import Sources

Combine = Literal["add", "concatenate", "concatenate_features", "project"]


class SharedAndTasks(nnx.Module):
    """What stands in the socket `Embed.prompt`."""

    def __init__(self, shared: nnx.Param, tasks: Array, bias_JD: Array | None, *, combine: Combine):
        self.shared = shared
        self.tasks = Tunable(tasks, axes=("tasks", "prompt", "embed"))
        self.bias: Any = nnx.data(None) if bias_JD is None else Tunable(bias_JD, axes=("tasks", "embed"))
        self.combine = combine

    def __call__(self) -> Array:
        """The rows of all tasks, one task after the other: [J * P, D]."""
        tasks = self.tasks[...]
        shared = jnp.broadcast_to(self.shared[...], (tasks.shape[0], *self.shared.shape))
        if self.combine == "add":
            rows_JPD = shared + tasks
        elif self.combine == "project":
            rows_JPD = jnp.einsum("jph,jhd->jpd", shared, tasks)
            rows_JPD = rows_JPD + jnp.broadcast_to(self.bias[...][:, None], rows_JPD.shape)
        else:
            rows_JPD = jnp.concatenate([shared, tasks], axis=1 if self.combine == "concatenate" else 2)
        return rows_JPD.reshape(-1, rows_JPD.shape[-1])


class CausalPrompt(nnx.Module):
    """What stands in the socket `visibility` of the encoder: prompt positions see no prompt position after them."""

    def __call__(self, slots_BS: Array) -> Array:
        """0 or `MASKED`, float32 [B, 1, S, S]."""
        queries, keys = slots_BS[:, None, :, None], slots_BS[:, None, None, :]
        return jnp.where((queries >= 0) & (keys > queries), MASKED, 0.0)


@dataclasses.dataclass(frozen=True)
class MultitaskPrompt(Prompt):
    """A shared prompt and one for each task; further settings are those of `Prompt`, for the encoder alone.

    Attributes:
      length: P.
      initializer: of the shared prompt, on as many entries of each embedding as it has.
      tasks: J, the number of tasks in the training data.
      combine: see above.
      task_length: rows of each task's own where parts are concatenated.
      task_features: entries of each task's own where features are.
      shared_features: entries of a shared row where it is projected.
      task_scale: the tasks' parts are drawn uniformly up to this number.
      variant: `fixed` or `released`, see above.
    """

    tasks: int = 1
    combine: Combine = "add"
    task_length: int = 20
    task_features: int = 16
    shared_features: int = 16
    task_scale: float = 0.5
    variant: Literal["released", "fixed"] = "fixed"
    initializer: Initializer = SampledVocabulary()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tasks", "task_length", "task_features", "shared_features"):
            fields.check_count(f"MultitaskPrompt.{name}", getattr(self, name))
        if self.combine not in ("add", "concatenate", "concatenate_features", "project"):
            raise UserError(
                f"MultitaskPrompt.combine: wanted 'add', 'concatenate', 'concatenate_features' or 'project', got {self.combine!r}"
            )
        if self.variant not in ("released", "fixed"):
            raise UserError(f"MultitaskPrompt.variant: wanted 'released' or 'fixed', got {self.variant!r}")
        if self.stacks != "encoder":
            raise UserError(f"MultitaskPrompt.stacks: wanted 'encoder', got {self.stacks!r}")

    @property
    def layout(self) -> PromptLayout:
        """Lengths and placement, with a prompt for each task."""
        length = self.length + (self.task_length if self.combine == "concatenate" else 0)
        return PromptLayout(encoder_length=length, placement=self.placement, tasks=self.tasks)

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts both parts into the embedding's socket."""
        embed: Any = getattr(model, "embed", None)
        if embed is None:
            raise UserError("MultitaskPrompt needs a model with a token embedding")
        embedding_VD = embed.embedding[...]
        width = embedding_VD.shape[1]
        shared_width = {"concatenate_features": width - self.task_features, "project": self.shared_features}.get(self.combine, width)
        if not 0 < shared_width <= width:
            setting = "task_features" if self.combine == "concatenate_features" else "shared_features"
            raise UserError(f"MultitaskPrompt.{setting}: wanted less than the model's width of {width}, got {getattr(self, setting)}")
        shape = {
            "add": (self.length, width),
            "concatenate": (self.task_length, width),
            "concatenate_features": (self.length, self.task_features),
            "project": (self.shared_features, width),
        }[self.combine]
        shared_key, tasks_key, bias_key = jax.random.split(key, 3)
        low = -self.task_scale if self.variant == "fixed" else 0.0

        def drawn(key: Array, *shape: int) -> Array:
            return jax.random.uniform(key, (self.tasks, *shape), jnp.float32, low, self.task_scale)

        shared = self.initializer(shared_key, self.length, embedding_VD[:, :shared_width], vocabulary).astype(jnp.float32)
        kind = Tunable if self.variant == "fixed" else Fixed
        bias_JD = drawn(bias_key, width) if self.combine == "project" else None
        embed.prompt = SharedAndTasks(kind(shared, axes=("prompt", "embed")), drawn(tasks_key, *shape), bias_JD, combine=self.combine)
        encoder: Any = getattr(model, "encoder", None)
        if self.variant == "released" and hasattr(encoder, "visibility"):  # A decoder-only model's positions see none after them as it is.
            encoder.visibility = CausalPrompt()
        uniform = f"initialiser {Uniform(self.task_scale, 'paper' if self.variant == 'fixed' else 'released')}"
        sources = {"embed/prompt/shared": f"initialiser {self.initializer}", "embed/prompt/tasks": uniform}
        return sources | ({"embed/prompt/bias": uniform} if bias_JD is not None else {})
