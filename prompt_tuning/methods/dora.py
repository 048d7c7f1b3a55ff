"""DoRA: LoRA turns the columns of a matrix, and a trained magnitude for each of them says how long they are.

Paper: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation" (arXiv:2402.09353).

What this file follows: y = m / ||V|| (x V), V = W + s A B, with the norm over the input width of each output (equation 5); m starts as
the norms of W, so that the first step starts from the base; the norm counts as a constant in the gradient (section 4.3), which does not
change the direction that m and B move in and saves memory. As in PEFT, dropout acts on the input of A only.

The norm is computed from A^T W and A^T A, so that V is never written out: |V|^2 = |W|^2 + 2 s B.(A^T W) + s^2 B.(A^T A) B per column.

Axes: B batch, S length, I and O input and output width, R and Q rank; stacked layers stand in front.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from prompt_tuning.methods.lora import Lora, LowRank
from prompt_tuning.models.layers import Array, Linear, Tunable
from prompt_tuning.trainable import Sources


class Decomposed(LowRank):
    """A low-rank change of direction, and a magnitude [..., O] (float32)."""

    def __init__(self, down_IR: Array, up_RO: Array, magnitude_O: Array, *, scale: float, dropout_rate: float, axes: tuple[str, str]):
        super().__init__(down_IR, up_RO, scale=scale, dropout_rate=dropout_rate, axes=axes)
        self.magnitude = Tunable(magnitude_O, axes=(axes[1],))

    def norms(self, kernel_IO: Array) -> Array:
        """||W + s A B|| of each output, [..., O], float32; at a zero it is 1, for there is no direction."""
        kernel = kernel_IO.astype(jnp.float32)
        down, up = self.down[...], self.up[...]
        squares_O = jnp.sum(kernel * kernel, axis=-2)
        cross_RO = jnp.einsum("...ir,...io->...ro", down, kernel, precision="highest")
        own_RQ = jnp.einsum("...ir,...iq->...rq", down, down, precision="highest")
        own_RO = jnp.einsum("...rq,...qo->...ro", own_RQ, up, precision="highest")
        squares_O = squares_O + jnp.sum(up * (2 * self.scale * cross_RO + self.scale**2 * own_RO), axis=-2)
        return jnp.where(squares_O > 0, jnp.sqrt(jnp.maximum(squares_O, 0)), 1.0)

    def __call__(self, x_BSI: Array, y_BSO: Array, kernel_IO: Array, *, key: Array | None = None) -> Array:
        """The product of the input with columns of direction V and length m."""
        gain_O = self.magnitude[...] / jax.lax.stop_gradient(self.norms(kernel_IO))
        changed_BSO = y_BSO + self.added(x_BSI, key)
        return changed_BSO * jnp.broadcast_to(gain_O.astype(changed_BSO.dtype), changed_BSO.shape)

    def fold(self, kernel_IO: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The kernel with direction V and length m, and the function that gives the base's again (a magnitude of zero loses it)."""
        change, dtype = self.change(), kernel_IO.dtype
        gain_1O = (self.magnitude[...] / self.norms(kernel_IO))[..., None, :]

        def taken_out(folded_IO: Array) -> Array:
            return (folded_IO / jnp.broadcast_to(gain_1O, change.shape) - change).astype(dtype)

        return ((kernel_IO + change) * jnp.broadcast_to(gain_1O, change.shape)).astype(dtype), taken_out


@dataclasses.dataclass(frozen=True)
class Dora(Lora):
    """LoRA with trained magnitudes; its settings are those of `Lora`."""

    def plug(self, linear: Linear, key: Array, *, name: str) -> Sources:
        """Fills the socket of one linear layer, called `name`."""
        norms_O = jnp.linalg.norm(linear.kernel[...].astype(jnp.float32), axis=-2)
        linear.delta = Decomposed(*self.first_values(linear, key), norms_O, **self.settings(linear))
        return {
            f"{name}/delta/down": f"initialiser {self.initializer}",
            f"{name}/delta/up": "initialiser zeros",
            f"{name}/delta/magnitude": "norms of the base's columns",
        }
