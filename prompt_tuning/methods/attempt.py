"""ATTEMPT: each input takes its own mixture of source tasks' prompts, which stay frozen, on top of a trained target prompt.

Paper: Asai et al. 2022, "ATTEMPT: Parameter-Efficient Multi-task Tuning via Attentional Mixtures of Soft Prompts" (arXiv:2205.11961).
Code: AkariAsai/ATTEMPT.

What this file follows: the input is pooled to x, the maximum of its token embeddings entry by entry; h = LayerNorm(SiLU(x W_down) W_up);
each prompt, the target's included, is pooled likewise over its rows; a = softmax(pooled . h / temperature); the prompt is the target's plus
the sum of all prompts weighted by a (section 3.2). The temperature is e times the model's width by default, the bottleneck is 100 wide, and
both matrices begin at N(0, 0.01^2), as in the released code.

Deviations: padding does not take part in the maximum (in the released code it does, so that an example depends on the batch it is in).
One target task is tuned at a time, without an attention shared between target tasks. For encoder-decoders.

Axes: B batch, S source length, J source prompts, P prompt length, D model width, M bottleneck width, G segments of a row.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt, load_npy
from prompt_tuning.models.layers import Array, Fixed, Tunable
from prompt_tuning.models.t5 import T5
from prompt_tuning.trainable import Sources

_STD = 0.01
_EPSILON = 1e-5


class AttendedPrompts(nnx.Module):
    """What stands in the socket `Embed.prompt`."""

    def __init__(self, rows_PD: Array, sources_JPD: Array, key: Array, *, width: int, temperature: float):
        model_width = rows_PD.shape[1]
        down_key, up_key = jax.random.split(key)
        self.rows = Tunable(rows_PD, axes=("prompt", "embed"))
        self.sources = Fixed(sources_JPD, axes=("tasks", "prompt", "embed"))
        self.down = Tunable(_STD * jax.random.normal(down_key, (model_width, width), jnp.float32), axes=("embed", "bottleneck"))
        self.up = Tunable(_STD * jax.random.normal(up_key, (width, model_width), jnp.float32), axes=("bottleneck", "embed"))
        self.norm_scale = Tunable(jnp.ones((model_width,), jnp.float32), axes=("embed",))
        self.norm_bias = Tunable(jnp.zeros((model_width,), jnp.float32), axes=("embed",))
        self.temperature = temperature

    def __call__(self) -> Array:
        """The target's rows [P, D], without what an input adds to them."""
        return self.rows[...]

    def among(self, x_BSD: Array, slots_BS: Array, segment_ids_BS: Array) -> Array:
        """The sequence with the prompt of each segment in its slots."""
        prompts_JPD = jnp.concatenate([self.sources[...], self.rows[...][None]])
        tokens_BS = jnp.where(slots_BS < 0, segment_ids_BS, 0)
        weights_BGJ = self.weights(_pooled(x_BSD.astype(jnp.float32), tokens_BS), prompts_JPD)
        weights_BSJ = jnp.take_along_axis(weights_BGJ, segment_ids_BS[..., None], axis=1)
        row_BS = jnp.maximum(slots_BS, 0)
        made_BSD = self.rows[...][row_BS]
        for number, prompt_PD in enumerate(prompts_JPD):  # One gather after the other: no array is J times the sequence.
            made_BSD = made_BSD + jnp.broadcast_to(weights_BSJ[..., number, None], made_BSD.shape) * prompt_PD[row_BS]
        return jnp.where((slots_BS >= 0)[..., None], made_BSD.astype(x_BSD.dtype), x_BSD)

    def weights(self, pooled_BGD: Array, prompts_JPD: Array) -> Array:
        """The share of each prompt [B, G, J], which sum to 1, for pooled inputs."""
        h_BGD = jax.nn.silu(pooled_BGD @ self.down[...]) @ self.up[...]
        h_BGD = h_BGD - jnp.mean(h_BGD, axis=-1, keepdims=True)
        h_BGD = h_BGD * jax.lax.rsqrt(jnp.mean(h_BGD * h_BGD, axis=-1, keepdims=True) + _EPSILON)
        scale, bias = (jnp.broadcast_to(part[...], h_BGD.shape) for part in (self.norm_scale, self.norm_bias))
        scores_BGJ = jnp.einsum("bgd,jd->bgj", h_BGD * scale + bias, jnp.max(prompts_JPD, axis=1))
        return jax.nn.softmax(scores_BGJ / self.temperature, axis=-1)


def _pooled(x_BSD: Array, segment_ids_BS: Array) -> Array:
    """The maximum over each segment, [B, S + 1, D] by segment id; 0 where there is no such segment."""
    count = x_BSD.shape[1] + 1
    pooled_BGD = jax.vmap(lambda x_SD, ids_S: jax.ops.segment_max(x_SD, ids_S, num_segments=count))(x_BSD, segment_ids_BS)
    return jnp.where(jnp.isfinite(pooled_BGD), pooled_BGD, 0.0)


@dataclasses.dataclass(frozen=True)
class Attempt(Prompt):
    """A trained prompt and an attention over frozen ones; further settings are those of `Prompt`, for the encoder alone.

    Attributes:
      sources: `.npy` files [P, D] of the source tasks' prompts, such as runs' `prompt.npy`.
      width: M.
      temperature: what scores are divided by; None for e times the model's width.
    """

    sources: tuple[str, ...] = ()
    width: int = 100
    temperature: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sources", (self.sources,) if isinstance(self.sources, str) else tuple(self.sources))
        if not self.sources:
            raise UserError("Attempt.sources is empty; wanted .npy files of prompts, as in ('runs/a/prompt.npy', 'runs/b/prompt.npy')")
        fields.check_count("Attempt.width", self.width)
        if self.temperature is not None and not self.temperature > 0:
            raise UserError(f"Attempt.temperature: wanted more than 0, got {self.temperature!r}")
        if self.stacks != "encoder":
            raise UserError(f"Attempt.stacks: wanted 'encoder', got {self.stacks!r}")

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts prompts and attention into the embedding's socket. Raises UserError for a file that does not fit."""
        if not isinstance(model, T5):
            raise UserError(f"Attempt pools what an encoder reads; wanted an encoder-decoder, got {type(model).__name__}")
        rows_key, network_key = jax.random.split(key)
        origin = super().attach(model, rows_key, vocabulary=vocabulary)["embed/prompt/rows"]
        embed: Any = model.embed
        rows_PD = embed.prompt()
        held = np.stack([load_npy(path, rows_PD.shape) for path in self.sources])
        temperature = math.e * rows_PD.shape[1] if self.temperature is None else self.temperature
        embed.prompt = AttendedPrompts(rows_PD, jnp.asarray(held), network_key, width=self.width, temperature=temperature)
        found = {"rows": origin, "sources": ", ".join(self.sources), "norm_scale": "initialiser ones", "norm_bias": "initialiser zeros"}
        found |= dict.fromkeys(("down", "up"), f"initialiser normal, std {_STD}")
        return {f"embed/prompt/{name}": source for name, source in found.items()}
