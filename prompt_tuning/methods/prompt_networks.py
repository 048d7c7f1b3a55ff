"""What methods share whose prompt a small network makes: its linear layers, and how the prompt stays when the network goes."""

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import PromptRows
from prompt_tuning.models.layers import Array, Tunable


def uniform(key: Array, shape: tuple[int, ...], fan_in: int) -> Array:
    """Uniform over [-fan_in^-0.5, fan_in^-0.5], float32, as PyTorch begins linear layers and LSTMs."""
    return jax.random.uniform(key, shape, jnp.float32, -(fan_in**-0.5), fan_in**-0.5)


class Affine(nnx.Module):
    """A trained linear layer with bias, on rows: [P, I] to [P, O], float32."""

    def __init__(self, key: Array, width_in: int, width_out: int):
        kernel_key, bias_key = jax.random.split(key)
        self.kernel = Tunable(uniform(kernel_key, (width_in, width_out), width_in), axes=("in", "out"))
        self.bias = Tunable(uniform(bias_key, (width_out,), width_in), axes=("out",))

    def __call__(self, x_PI: Array) -> Array:
        """x W + b."""
        y_PO = x_PI @ self.kernel[...]
        return y_PO + jnp.broadcast_to(self.bias[...], y_PO.shape)


def drop_network(model: nnx.Module) -> None:
    """Replaces the network in the model's prompt socket by the prompt it makes, in place: the model is then as `Prompt` makes it."""
    embed = getattr(model, "embed", None)
    if embed is None or embed.prompt is None or isinstance(embed.prompt, PromptRows):
        raise UserError("drop_network: the model has no network that makes its prompt; wanted one that such a method was attached to")
    embed.prompt = PromptRows(embed.prompt())
