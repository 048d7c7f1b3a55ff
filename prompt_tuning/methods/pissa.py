"""PiSSA: LoRA that trains the largest singular components of a matrix, and freezes the rest.

Paper: Meng, Wang, Zhang 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation" (arXiv:2404.02948).

What this file follows: W = U S V^T; A = U_R sqrt(S_R / s) and B = sqrt(S_R / s) V_R^T take the R largest components, and the frozen kernel
keeps W - s A B (section 3, equations 2 to 4; the scale s as in PEFT), so that the first step computes what the base does, up to rounding.

Traps: the frozen kernels of the targets are no longer the base's, and the audit table says so. The singular value decomposition may differ
in its last bits between machines, so a run is to be resumed on the kind it was started on: elsewhere its checkpoints may be refused as
made on another base. With bfloat16 parameters the residual is rounded to bfloat16.

Axes: I and O input and output width, R rank; stacked layers stand in front.
"""

import dataclasses

import jax.numpy as jnp

from prompt_tuning.errors import UserError
from prompt_tuning.methods.lora import Lora, LowRank
from prompt_tuning.models.layers import Array, Linear
from prompt_tuning.trainable import Sources


@dataclasses.dataclass(frozen=True)
class Pissa(Lora):
    """LoRA begun from principal components; its settings are those of `Lora`, whose `initializer` has no part here."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha <= 0:
            raise UserError(f"Pissa.alpha: wanted more than 0, got {self.alpha!r}")

    def plug(self, linear: Linear, key: Array, *, name: str) -> Sources:
        """Splits one kernel, called `name`, into what is trained and what stays."""
        del key
        kernel = linear.kernel[...]
        left, values, right = jnp.linalg.svd(kernel.astype(jnp.float32), full_matrices=False)
        root_R = jnp.sqrt(values[..., : self.rank] / self.scale)
        down = left[..., : self.rank] * jnp.broadcast_to(root_R[..., None, :], (*kernel.shape[:-1], self.rank))
        up = right[..., : self.rank, :] * jnp.broadcast_to(root_R[..., None], (*kernel.shape[:-2], self.rank, kernel.shape[-1]))
        linear.delta = LowRank(down, up, **self.settings(linear))
        linear.kernel.set_value((kernel - linear.delta.change()).astype(kernel.dtype))
        largest = f"the base's {self.rank} largest singular components"
        return {
            f"{name}/delta/down": largest,
            f"{name}/delta/up": largest,
            f"{name}/kernel": f"the base's, without its {self.rank} largest singular components",
        }
