"""Residual prompt tuning: the prompt is its trained rows plus what a small network makes of each.

Paper: Razdaibiedina et al. 2023, "Residual Prompt Tuning" (arXiv:2305.03937). Code: arazd/ResidualPrompts.

What this file follows: P' = P + LayerNorm(ReLU(P W) V), one bottleneck shared by all rows (section 2.2), no biases in W and V, LayerNorm
with scale and bias; the network is thrown away after training (`prompt_networks.drop_network`). `separate` gives each row a network of its
own, the paper's ablation.

Axes: P prompt length, D model width, M bottleneck width.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.methods.prompt import Prompt
from prompt_tuning.methods.prompt_networks import uniform
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources

_EPSILON = 1e-5


class Residual(nnx.Module):
    """What stands in the socket `Embed.prompt`."""

    def __init__(self, rows_PD: Array, key: Array, *, width: int, separate: bool):
        length, model_width = rows_PD.shape
        networks = length if separate else 1
        down_key, up_key = jax.random.split(key)
        self.inputs = Tunable(rows_PD, axes=("prompt", "embed"))
        self.down = Tunable(uniform(down_key, (networks, model_width, width), model_width), axes=("prompt", "embed", "bottleneck"))
        self.up = Tunable(uniform(up_key, (networks, width, model_width), width), axes=("prompt", "bottleneck", "embed"))
        self.norm_scale = Tunable(jnp.ones((networks, model_width), jnp.float32), axes=("prompt", "embed"))
        self.norm_bias = Tunable(jnp.zeros((networks, model_width), jnp.float32), axes=("prompt", "embed"))

    def __call__(self) -> Array:
        """The rows [P, D]."""
        rows_PD = self.inputs[...]
        # One network is the same for all rows: its axis is 1 long.
        down, up, scale, bias = (
            jnp.broadcast_to(x[...], (rows_PD.shape[0], *x.shape[1:])) for x in (self.down, self.up, self.norm_scale, self.norm_bias)
        )
        y_PD = jnp.einsum("pm,pmd->pd", jax.nn.relu(jnp.einsum("pd,pdm->pm", rows_PD, down)), up)
        y_PD = y_PD - jnp.mean(y_PD, axis=-1, keepdims=True)
        y_PD = y_PD * jax.lax.rsqrt(jnp.mean(y_PD * y_PD, axis=-1, keepdims=True) + _EPSILON)
        return rows_PD + y_PD * scale + bias


@dataclasses.dataclass(frozen=True)
class ResidualPrompt(Prompt):
    """Soft prompts with a residual network; further settings are those of `Prompt`.

    Attributes:
      width: M; the paper takes 800.
      separate: each row has its own network.
    """

    width: int = 800
    separate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        fields.check_count("ResidualPrompt.width", self.width)

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts rows and network into the embedding's socket."""
        rows_key, network_key = jax.random.split(key)
        sources = super().attach(model, rows_key, vocabulary=vocabulary)
        embed: Any = model.embed  # type: ignore[attr-defined]
        embed.prompt = Residual(embed.prompt(), network_key, width=self.width, separate=self.separate)
        drawn = dict.fromkeys(("down", "up"), "initialiser uniform, +-fan_in^-0.5")
        drawn |= {"norm_scale": "initialiser ones", "norm_bias": "initialiser zeros"}
        return {"embed/prompt/inputs": sources["embed/prompt/rows"]} | {f"embed/prompt/{part}": source for part, source in drawn.items()}
