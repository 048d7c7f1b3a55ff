"""IA3: trained scales on keys, values and the inner activation of the feed-forward layers, all ones at the start.

Paper: Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning" (arXiv:2205.05638).
Code: r-three/t-few.

What this file follows: the three vectors of section 3.3, in every attention and feed-forward layer of both stacks. In a gated
feed-forward layer the scale stands on the product of the two branches, which is the released code's scale on the linear one.

In latent attention (DeepSeek) keys and values are parts of one product (`up`): the scales are on its units, and none is on the rotated key
that all heads share. Of a mixture of experts the shared one alone is scaled.

A scale can be folded into the matrix beside it (`merge`), after which the model costs what the base does.

Axes: I and O input and output width; stacked layers stand in front.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods import sites
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources, Which

# Socket -> the linear layer beside it and the scale's logical axis.
_BESIDE = {"k_scale": ("key", "heads"), "v_scale": ("value", "heads"), "scale": ("wo", "mlp")}


class Scale(nnx.Module):
    """What stands in the sockets `k_scale`, `v_scale` and `Mlp.scale`: one number for each unit [..., I or O]."""

    def __init__(self, values: Array, *, axis: str):
        self.scale = Tunable(values, axes=(axis,))

    def __call__(self) -> Array:
        """The scale."""
        return self.scale[...]


@dataclasses.dataclass(frozen=True)
class IA3:
    """Trained scales.

    Attributes:
      keys, values, feed_forward: regular expressions for whole names of attentions (keys and values) and feed-forward layers that are
        scaled; empty for none.
    """

    keys: tuple[str, ...] = (".*",)
    values: tuple[str, ...] = (".*",)
    feed_forward: tuple[str, ...] = (".*",)

    def __post_init__(self) -> None:
        for name in ("keys", "values", "feed_forward"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # gin gives lists.
        if not (self.keys or self.values or self.feed_forward):
            raise UserError("IA3: keys, values and feed_forward are all empty; wanted at least one pattern, as in ('.*',)")

    @property
    def layout(self) -> PromptLayout:
        """No prompt."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """The scales."""
        return Tunable

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Fills the sockets with ones."""
        del key, vocabulary
        sources: Sources = {}
        for socket, targets, field in (
            ("k_scale", self.keys, "keys"),
            ("v_scale", self.values, "values"),
            ("scale", self.feed_forward, "feed_forward"),
        ):
            if not targets:
                continue
            # The name of the feed-forward layers' socket is that of a norm's scale too.
            beside = "wo" if socket == "scale" else None
            for name, module in sites.with_socket(model, socket, targets, where=f"IA3.{field}", beside=beside).items():
                linear, units, _ = _scaled_units(module, socket)
                stacked = linear.kernel.shape[:-2]
                setattr(module, socket, Scale(jnp.ones((*stacked, len(units)), jnp.float32), axis=_BESIDE[socket][1]))
                sources[f"{name}/{socket}/scale"] = "initialiser ones"
        return sources


def merge(model: nnx.Module) -> Callable[[], None]:
    """Folds every scale into the kernel beside it and empties the sockets, in place.

    Gives the function that undoes it, in place too, up to rounding in the kernels' dtype: it divides by the scales, and so cannot bring
    back what a scale of zero took. Raises UserError where there is nothing to fold.
    """
    undo: list[tuple[Any, str, Scale]] = []
    for module in sites.modules(model, nnx.Module).values():
        for socket in _BESIDE:
            if isinstance(scale := getattr(module, socket, None), Scale):
                undo.append((module, socket, scale))
                _scaled(module, socket, scale())
                setattr(module, socket, nnx.data(None))
    if not undo:
        raise UserError("merge: the model has no scale; wanted one that IA3 was attached to")

    def unmerge() -> None:
        for module, socket, scale in undo:
            _scaled(module, socket, 1 / scale())
            setattr(module, socket, scale)

    return unmerge


def _scaled_units(module: Any, socket: str) -> tuple[Any, np.ndarray, bool]:
    """The linear layer that a scale stands beside, which of its units it multiplies, and whether those are outputs (else inputs)."""
    if hasattr(module, "scaled_units"):
        return module.up, module.scaled_units(socket), True
    linear, of_output = getattr(module, _BESIDE[socket][0]), socket != "scale"
    return linear, np.arange(linear.kernel.shape[-1 if of_output else -2]), of_output


def _scaled(module: Any, socket: str, scale: jax.Array) -> None:
    linear, units, of_output = _scaled_units(module, socket)
    value = linear.kernel[...]
    whole = jnp.ones((*scale.shape[:-1], value.shape[-1 if of_output else -2]), scale.dtype).at[..., units].set(scale)
    wide = whole[..., None, :] if of_output else whole[..., :, None]
    linear.kernel.set_value((value * jnp.broadcast_to(wide, value.shape)).astype(value.dtype))
    bias = getattr(linear, "bias", None)  # Some models' linear layers have one.
    if of_output and bias is not None:
        bias.set_value((bias[...] * whole).astype(bias[...].dtype))
