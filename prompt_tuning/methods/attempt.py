"""ATTEMPT: each input takes its own mixture of source tasks' prompts, which stay frozen, on top of a trained target prompt.

Paper: Asai et al. 2022, "ATTEMPT: Parameter-Efficient Multi-task Tuning via Attentional Mixtures of Soft Prompts" (arXiv:2205.11961).
Code: AkariAsai/ATTEMPT.

What this file follows: the input is pooled to x, the maximum of its token embeddings entry by entry; h = LayerNorm(SiLU(x W_down) W_up);
each prompt, the target's included, is pooled likewise over its rows; a = softmax(pooled . h / temperature); the prompt is the target's plus
the sum of all prompts weighted by a (section 3.2). The temperature is e times the model's width by default, the bottleneck is 100 wide, and
both matrices begin at N(0, 0.01^2), as in the released code.

With `tasks`, several target tasks are tuned in one batch: each has a prompt of its own, which takes the target's place above for its
examples, and all share the source prompts and the attention (the paper's multi-task training). An attention trained so is begun from
by naming its run (`attention`), and may learn at another speed than the prompts (`attention_rate_factor`; 0.1 over 0.3 in the released
multi-task configuration).

Deviations: padding does not take part in the maximum (in the released code it does, so that an example depends on the batch it is in).
For encoder-decoders.

Axes: B batch, S source length, J source prompts, K target tasks, P prompt length, D model width, M bottleneck width, G segments of a row.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning import checkpoints, fields
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt, load_npy
from prompt_tuning.models.layers import Array, Fixed, Tunable
from prompt_tuning.models.t5 import T5
from prompt_tuning.trainable import Sources

_SOCKET = "embed/prompt"
_ATTENTION = ("down", "up", "norm_scale", "norm_bias")
_STD = 0.01
_EPSILON = 1e-5


class AttendedPrompts(nnx.Module):
    """What stands in the socket `Embed.prompt`."""

    def __init__(self, rows_PD: Array, sources_JPD: Array, key: Array, *, width: int, temperature: float):
        model_width = rows_PD.shape[1]
        down_key, up_key = jax.random.split(key)
        self.rows = Tunable(rows_PD, axes=("prompt", "embed"))  # K * P of them.
        self.sources = Fixed(sources_JPD, axes=("tasks", "prompt", "embed"))
        self.down = Tunable(_STD * jax.random.normal(down_key, (model_width, width), jnp.float32), axes=("embed", "bottleneck"))
        self.up = Tunable(_STD * jax.random.normal(up_key, (width, model_width), jnp.float32), axes=("bottleneck", "embed"))
        self.norm_scale = Tunable(jnp.ones((model_width,), jnp.float32), axes=("embed",))
        self.norm_bias = Tunable(jnp.zeros((model_width,), jnp.float32), axes=("embed",))
        self.temperature = temperature

    def __call__(self) -> Array:
        """The targets' rows [K * P, D], one task after the other, without what an input adds to them."""
        return self.rows[...]

    def among(self, x_BSD: Array, slots_BS: Array, segment_ids_BS: Array) -> Array:
        """The sequence with the prompt of each segment in its slots."""
        length = self.sources.shape[1]
        tokens_BS = jnp.where(slots_BS < 0, segment_ids_BS, 0)
        # A segment's slots name the rows of its task.
        task_BG = jnp.maximum(_pooled(slots_BS[..., None], segment_ids_BS)[..., 0], 0) // length
        weights_BGJ = self.weights(_pooled(x_BSD.astype(jnp.float32), tokens_BS), task_BG)
        weights_BSJ = jnp.take_along_axis(weights_BGJ, segment_ids_BS[..., None], axis=1)
        row_BS = jnp.maximum(slots_BS, 0)
        own_BSD = self.rows[...][row_BS]
        made_BSD = own_BSD + jnp.broadcast_to(weights_BSJ[..., -1:], own_BSD.shape) * own_BSD
        for number, source_PD in enumerate(self.sources[...]):  # One gather after the other: no array is J times the sequence.
            made_BSD = made_BSD + jnp.broadcast_to(weights_BSJ[..., number, None], made_BSD.shape) * source_PD[row_BS % length]
        return jnp.where((slots_BS >= 0)[..., None], made_BSD.astype(x_BSD.dtype), x_BSD)

    def weights(self, pooled_BGD: Array, task_BG: Array) -> Array:
        """The share of each source prompt and, last, of the task's own [B, G, J + 1], which sum to 1, for pooled inputs."""
        h_BGD = jax.nn.silu(pooled_BGD @ self.down[...]) @ self.up[...]
        h_BGD = h_BGD - jnp.mean(h_BGD, axis=-1, keepdims=True)
        h_BGD = h_BGD * jax.lax.rsqrt(jnp.mean(h_BGD * h_BGD, axis=-1, keepdims=True) + _EPSILON)
        scale, bias = (jnp.broadcast_to(part[...], h_BGD.shape) for part in (self.norm_scale, self.norm_bias))
        targets_KPD = self.rows[...].reshape(-1, *self.sources.shape[1:])
        of_sources, of_targets = (
            jnp.einsum("bgd,jd->bgj", h_BGD * scale + bias, jnp.max(prompts, axis=1)) for prompts in (self.sources[...], targets_KPD)
        )
        scores_BGJ = jnp.concatenate([of_sources, jnp.take_along_axis(of_targets, task_BG[..., None], axis=-1)], axis=-1)
        return jax.nn.softmax(scores_BGJ / self.temperature, axis=-1)


def _pooled(x_BSD: Array, segment_ids_BS: Array) -> Array:
    """The maximum over each segment, [B, S + 1, D] by segment id; 0 where there is no such segment."""
    count = x_BSD.shape[1] + 1
    pooled_BGD = jax.vmap(lambda x_SD, ids_S: jax.ops.segment_max(x_SD, ids_S, num_segments=count))(x_BSD, segment_ids_BS)
    there_BG = jax.vmap(lambda ids_S: jnp.zeros(count, bool).at[ids_S].set(True))(segment_ids_BS)
    return jnp.where(there_BG[..., None], pooled_BGD, 0)


@dataclasses.dataclass(frozen=True)
class Attempt(Prompt):
    """A trained prompt for each task and an attention over frozen ones; further settings are those of `Prompt`, for the encoder alone.

    Attributes:
      sources: `.npy` files [P, D] of the source tasks' prompts, such as runs' `prompt.npy`.
      width: M.
      temperature: what scores are divided by; None for e times the model's width.
      tasks: K, the number of tasks in the training data.
      attention: the work folder of another run of this method, with whose attention this one begins; the empty string for none.
      attention_rate_factor: the learning rate of the attention over that of the prompts.
    """

    sources: tuple[str, ...] = ()
    width: int = 100
    temperature: float | None = None
    tasks: int = 1
    attention: str = ""
    attention_rate_factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sources", (self.sources,) if isinstance(self.sources, str) else tuple(self.sources))
        if not self.sources:
            raise UserError("Attempt.sources is empty; wanted .npy files of prompts, as in ('runs/a/prompt.npy', 'runs/b/prompt.npy')")
        for name in ("width", "tasks"):
            fields.check_count(f"Attempt.{name}", getattr(self, name))
        if not self.attention_rate_factor >= 0:
            raise UserError(f"Attempt.attention_rate_factor: wanted 0 or more, got {self.attention_rate_factor!r}")
        if self.temperature is not None and not self.temperature > 0:
            raise UserError(f"Attempt.temperature: wanted more than 0, got {self.temperature!r}")
        if self.stacks != "encoder":
            raise UserError(f"Attempt.stacks: wanted 'encoder', got {self.stacks!r}")

    @property
    def layout(self) -> PromptLayout:
        """Length and placement, with a prompt for each task."""
        return PromptLayout(encoder_length=self.length, placement=self.placement, tasks=self.tasks)

    @property
    def rate_factors(self) -> Mapping[str, float]:
        """That of the attention."""
        return {f"{_SOCKET}/({'|'.join(_ATTENTION)})": self.attention_rate_factor}

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts prompts and attention into the embedding's socket. Raises UserError for a file or a run that does not fit."""
        if not isinstance(model, T5):
            raise UserError(f"Attempt pools what an encoder reads; wanted an encoder-decoder, got {type(model).__name__}")
        rows_key, network_key = jax.random.split(key)
        table_VD = model.embed.embedding[...]
        drawn = [self.initializer(each, self.length, table_VD, vocabulary) for each in jax.random.split(rows_key, self.tasks)]
        rows_PD = jnp.concatenate(drawn).astype(jnp.float32)
        held = np.stack([load_npy(path, (self.length, table_VD.shape[1])) for path in self.sources])
        temperature = math.e * rows_PD.shape[1] if self.temperature is None else self.temperature
        prompt = AttendedPrompts(rows_PD, jnp.asarray(held), network_key, width=self.width, temperature=temperature)
        model.embed.prompt = prompt
        found = {"rows": f"initialiser {self.initializer}", "sources": ", ".join(self.sources)}
        found |= {"norm_scale": "initialiser ones", "norm_bias": "initialiser zeros"}
        found |= dict.fromkeys(("down", "up"), f"initialiser normal, std {_STD}")
        if self.attention:
            read = checkpoints.read_run(self.attention, Attempt, where="Attempt.attention")
            for name in _ATTENTION:
                variable, value = getattr(prompt, name), read[f"{_SOCKET}/{name}"]
                if value.shape != variable.shape:
                    raise UserError(
                        f"Attempt.attention {self.attention!r}: wanted {name} of shape {list(variable.shape)}, got {list(value.shape)}; "
                        "set Attempt.width, or choose the model it was trained on"
                    )
                variable.set_value(jnp.asarray(value))
                found[name] = self.attention
        return {f"{_SOCKET}/{name}": source for name, source in found.items()}
