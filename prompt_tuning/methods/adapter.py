"""Adapters: a bottleneck of two small linear layers at every sub-layer of a frozen model.

Papers: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP" (arXiv:1902.00751), in series after each sub-layer; He et al.
2022, "Towards a Unified View of Parameter-Efficient Transfer Learning" (arXiv:2110.04366), in parallel to it.

What this file follows: `series` is y + f(y W + a) V + b on the sub-layer's output before the residual sum (1902.00751, section 2.1), the
layer norms trained along, and weights drawn from N(0, 1e-4) cut at two standard deviations, so that the model begins near the base; V is
zero instead with `zero_init`, so that it begins as the base. `parallel` adds scale * (f(x W + a) V + b) of the sub-layer's normed input x
(2110.04366, table 1; there with ReLU and scale 4 at feed-forward layers), V zero.

Deviations: the nonlinearity is the ReLU of the second paper in both (the first leaves it open; its code takes GELU, which `activation`
gives); a T5 has no classification head to train along.

Axes: B batch, S length, D model width, M bottleneck width; stacked layers stand in front.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods import sites
from prompt_tuning.models.layers import Array, Tunable, product
from prompt_tuning.trainable import Matching, Sources, Which

_ACTIVATIONS = {"relu": jax.nn.relu, "gelu": jax.nn.gelu}


class Bottleneck(nnx.Module):
    """What stands in the sockets `adapter` and `parallel` of a block."""

    def __init__(self, down_DM: Array, up_MD: Array, *, activation: str, scale: float, residual: bool):
        self.down = Tunable(down_DM, axes=("embed", "bottleneck"))
        self.down_bias = Tunable(jnp.zeros((*down_DM.shape[:-2], down_DM.shape[-1]), jnp.float32), axes=("bottleneck",))
        self.up = Tunable(up_MD, axes=("bottleneck", "embed"))
        self.up_bias = Tunable(jnp.zeros((*up_MD.shape[:-2], up_MD.shape[-1]), jnp.float32), axes=("embed",))
        self.activation = activation
        self.scale = scale
        self.residual = residual

    def __call__(self, x_BSD: Array) -> Array:
        """[B, S, D] in the dtype of the input, which is added where the adapter stands in series."""
        h_BSM = product(x_BSD, self.down[...].astype(x_BSD.dtype))
        h_BSM = _ACTIVATIONS[self.activation](h_BSM + jnp.broadcast_to(self.down_bias[...].astype(h_BSM.dtype), h_BSM.shape))
        y_BSD = product(h_BSM, self.up[...].astype(x_BSD.dtype))
        y_BSD = (y_BSD + jnp.broadcast_to(self.up_bias[...].astype(y_BSD.dtype), y_BSD.shape)) * self.scale
        return x_BSD + y_BSD if self.residual else y_BSD


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Bottlenecks.

    Attributes:
      width: M.
      placement: `series` after each sub-layer (Houlsby) or `parallel` to it (He).
      targets: regular expressions for whole names of sub-layers, as in `.*/feed_forward`; the default is all of them.
      activation: between the two layers.
      scale: of what the bottleneck adds.
      zero_init: V begins at zero; a parallel adapter's always does.
      train_norms: the base's layer norms are trained along.
    """

    width: int = 64
    placement: Literal["series", "parallel"] = "series"
    targets: tuple[str, ...] = (".*",)
    activation: Literal["relu", "gelu"] = "relu"
    scale: float = 1.0
    zero_init: bool = False
    train_norms: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # gin gives lists.
        fields.check_count("Adapter.width", self.width)
        if self.placement not in ("series", "parallel"):
            raise UserError(f"Adapter.placement: wanted 'series' or 'parallel', got {self.placement!r}")
        if self.activation not in _ACTIVATIONS:
            raise UserError(f"Adapter.activation: wanted one of {list(_ACTIVATIONS)}, got {self.activation!r}")

    @property
    def layout(self) -> PromptLayout:
        """No prompt."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """The bottlenecks, and the layer norms if they are trained along."""
        return Matching((".*/(adapter|parallel)/(down|up)(_bias)?", ".*norm/scale")) if self.train_norms else Tunable

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Fills the sockets of the sub-layers."""
        del vocabulary
        socket = "adapter" if self.placement == "series" else "parallel"
        zero = self.zero_init or self.placement == "parallel"
        sources: Sources = {}
        for name, block in sites.with_socket(model, socket, self.targets, where="Adapter.targets").items():
            *stacked, width = block.norm.scale.shape
            down_key, up_key = jax.random.split(sites.key_for(key, name))
            shapes = (*stacked, width, self.width), (*stacked, self.width, width)
            down, up = (
                1e-2 * jax.random.truncated_normal(each, -2.0, 2.0, shape, jnp.float32)
                for each, shape in zip((down_key, up_key), shapes, strict=True)
            )
            made = Bottleneck(
                down,
                jnp.zeros_like(up) if zero else up,
                activation=self.activation,
                scale=self.scale,
                residual=self.placement == "series",
            )
            setattr(block, socket, made)
            normal = "initialiser normal, std 0.01, cut at two"
            sources |= {f"{name}/{socket}/down": normal, f"{name}/{socket}/up": "initialiser zeros" if zero else normal}
            sources |= {f"{name}/{socket}/{part}": "initialiser zeros" for part in ("down_bias", "up_bias")}
        return sources
