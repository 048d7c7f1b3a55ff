"""LoRA: the frozen matrix of a linear layer is trained along a product of two narrow ones, y = x W + s (x A) B.

Paper: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685). Code: microsoft/LoRA.
rsLoRA: Kalajdzievski 2023 (arXiv:2312.03732).

What this file follows: s = alpha / rank, B zero, so that the first step starts from the base (section 4.1); queries and values by default
(section 4.2); no bias. `rank_stabilized` takes s = alpha / sqrt(rank). Dropout stands before A, as in the released code.

`kaiming_uniform` draws A from the uniform distribution over [-1 / sqrt(I), 1 / sqrt(I)], as the released code and PEFT do; `normal`, the
paper's words, from N(0, 1 / rank^2), PEFT's "gaussian".

Variants have files of their own: `dora.py`, `pissa.py`.

Axes: B batch, S length, I and O input and output width, R rank; stacked layers stand in front.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods import sites
from prompt_tuning.models.layers import Array, Linear, Tunable, dropout, product
from prompt_tuning.trainable import Sources, Which


class LowRank(nnx.Module):
    """What stands in the socket `Linear.delta`.

    Attributes:
      down, up: A [..., I, R] and B [..., R, O], float32.
      scale: s.
    """

    def __init__(self, down_IR: Array, up_RO: Array, *, scale: float, dropout_rate: float, axes: tuple[str, str]):
        self.down = Tunable(down_IR, axes=(axes[0], "rank"))
        self.up = Tunable(up_RO, axes=("rank", axes[1]))
        self.scale = scale
        self.dropout_rate = dropout_rate

    def added(self, x_BSI: Array, key: Array | None) -> Array:
        """s (x A) B, [B, S, O]."""
        h_BSR = product(dropout(x_BSI, self.dropout_rate, key), self.down[...].astype(x_BSI.dtype))
        return product(h_BSR, self.up[...].astype(x_BSI.dtype)) * self.scale

    def __call__(self, x_BSI: Array, y_BSO: Array, kernel_IO: Array, *, key: Array | None = None) -> Array:
        """The product with the change added."""
        del kernel_IO
        return y_BSO + self.added(x_BSI, key)

    def change(self) -> Array:
        """s A B, [..., I, O], float32."""
        return self.scale * jnp.einsum("...ir,...ro->...io", self.down[...], self.up[...], precision="highest")

    def fold(self, kernel_IO: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The kernel with the change in it, and the function that takes it out again; both in the kernel's dtype."""
        change = self.change()
        dtype = kernel_IO.dtype
        return (kernel_IO + change).astype(dtype), lambda folded_IO: (folded_IO - change).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Lora:
    """Low-rank changes of linear layers.

    Attributes:
      rank: R.
      alpha: of the scale s.
      targets: regular expressions for whole names of linear layers; `.*/(query|value)` is the paper's choice.
      rank_stabilized: s = alpha / sqrt(rank) rather than alpha / rank.
      dropout_rate: on the input of A, in training only.
      initializer: of A.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = (".*/(query|value)",)
    rank_stabilized: bool = False
    dropout_rate: float = 0.0
    initializer: Literal["kaiming_uniform", "normal"] = "kaiming_uniform"

    def __post_init__(self) -> None:
        where = type(self).__name__
        object.__setattr__(self, "targets", tuple(self.targets))  # gin gives lists.
        fields.check_count(f"{where}.rank", self.rank)
        if not 0.0 <= self.dropout_rate < 1.0:
            raise UserError(f"{where}.dropout_rate: wanted 0 or more and less than 1, got {self.dropout_rate!r}")
        if self.initializer not in ("kaiming_uniform", "normal"):
            raise UserError(f"{where}.initializer: wanted 'kaiming_uniform' or 'normal', got {self.initializer!r}")

    @property
    def layout(self) -> PromptLayout:
        """No prompt."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """A and B alone."""
        return Tunable

    @property
    def scale(self) -> float:
        """s."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Plugs a change into every target."""
        del vocabulary
        sources: Sources = {}
        for name, linear in sites.with_socket(model, "delta", self.targets, where=f"{type(self).__name__}.targets").items():
            *_, width_in, width_out = linear.kernel.shape
            if self.rank > min(width_in, width_out):
                raise UserError(
                    f"{type(self).__name__}.rank: wanted at most {min(width_in, width_out)}, the smaller width of {name}, got {self.rank}"
                )
            sources |= self.plug(linear, sites.key_for(key, name), name=name)
        return sources

    def plug(self, linear: Linear, key: Array, *, name: str) -> Sources:
        """Fills the socket of one linear layer, called `name`."""
        linear.delta = LowRank(*self.first_values(linear, key), **self.settings(linear))
        return {f"{name}/delta/down": f"initialiser {self.initializer}", f"{name}/delta/up": "initialiser zeros"}

    def first_values(self, linear: Linear, key: Array) -> tuple[Array, Array]:
        """A, drawn for each layer, and B, zero."""
        *stacked, width_in, width_out = linear.kernel.shape
        shape = (*stacked, width_in, self.rank)
        if self.initializer == "normal":
            down = jax.random.normal(key, shape, jnp.float32) / self.rank
        else:
            bound = width_in**-0.5
            down = jax.random.uniform(key, shape, jnp.float32, -bound, bound)
        return down, jnp.zeros((*stacked, self.rank, width_out), jnp.float32)

    def settings(self, linear: Linear) -> dict[str, Any]:
        """What else the module needs."""
        return {"scale": self.scale, "dropout_rate": self.dropout_rate, "axes": linear.kernel.get_metadata()["axes"]}


def merge(model: nnx.Module) -> Callable[[], None]:
    """Folds every low-rank change into the kernel it changes and empties the sockets, in place: the model costs what the base does.

    Gives the function that undoes it, in place too, up to rounding in the kernels' dtype. Raises UserError where there is nothing to fold.
    """
    changed = {name: linear for name, linear in sites.modules(model, Linear).items() if isinstance(linear.delta, LowRank)}
    if not changed:
        raise UserError("merge: the model has no low-rank change; wanted one that Lora, Dora or Pissa was attached to")
    undo: list[tuple[Linear, LowRank, Callable[[Array], Array]]] = []
    for linear in changed.values():
        delta = linear.delta
        kernel_IO, taken_out = delta.fold(linear.kernel[...])
        undo.append((linear, delta, taken_out))
        linear.kernel.set_value(kernel_IO)
        linear.delta = nnx.data(None)

    def unmerge() -> None:
        for linear, delta, taken_out in undo:
            linear.kernel.set_value(taken_out(linear.kernel[...]))
            linear.delta = delta

    return unmerge
