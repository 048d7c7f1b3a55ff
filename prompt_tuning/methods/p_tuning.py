"""P-tuning: a small network over trained rows makes the prompt.

Paper: Liu et al. 2021, "GPT Understands, Too" (arXiv:2103.10385). Code: THUDM/P-tuning.

What this file follows: `lstm` is a bidirectional LSTM over the rows in their order and two linear layers with a ReLU between
(section 3.2), `mlp` three linear layers with ReLUs on each row by itself, both as in PEFT; PyTorch's first values. The network is thrown
away after training (`prompt_networks.drop_network`).

Deviations: the paper places the rows by a template among the input's tokens and trains the base too on large data; here `placement` and a
frozen base, as for `Prompt`. No dropout between LSTM layers.

Axes: P prompt length, D model width, M hidden width, I input width of a layer.
"""

import dataclasses
import itertools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt
from prompt_tuning.methods.prompt_networks import Affine, uniform
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources, named_variables


class Direction(nnx.Module):
    """An LSTM in one direction (Hochreiter & Schmidhuber 1997), its gates in the order input, forget, cell, output."""

    def __init__(self, key: Array, width_in: int, width: int):
        keys = jax.random.split(key, 3)
        self.wi = Tunable(uniform(keys[0], (width_in, 4 * width), width), axes=("in", "gates"))
        self.wh = Tunable(uniform(keys[1], (width, 4 * width), width), axes=("in", "gates"))
        self.bias = Tunable(uniform(keys[2], (4 * width,), width), axes=("gates",))

    def __call__(self, x_PI: Array, *, reverse: bool) -> Array:
        """States [P, M], from zero states."""
        given_PG = x_PI @ self.wi[...]
        given_PG = given_PG + jnp.broadcast_to(self.bias[...], given_PG.shape)
        zeros_M = jnp.zeros((self.wh.shape[0],), given_PG.dtype)

        def step(state: tuple[Array, Array], given_G: Array) -> tuple[tuple[Array, Array], Array]:
            h_M, c_M = state
            i, f, g, o = jnp.split(given_G + h_M @ self.wh[...], 4)
            c_M = jax.nn.sigmoid(f) * c_M + jax.nn.sigmoid(i) * jnp.tanh(g)
            h_M = jax.nn.sigmoid(o) * jnp.tanh(c_M)
            return (h_M, c_M), h_M

        return jax.lax.scan(step, (zeros_M, zeros_M), given_PG, reverse=reverse)[1]


class Encoded(nnx.Module):
    """What stands in the socket `Embed.prompt`: rows, LSTM layers if there are any, and linear layers."""

    def __init__(self, rows_PD: Array, key: Array, *, hidden: int, lstm_layers: int):
        width = rows_PD.shape[1]
        self.inputs = Tunable(rows_PD, axes=("prompt", "embed"))
        keys = iter(jax.random.split(key, 2 * lstm_layers + 3))
        widths_in = [width, *[2 * hidden] * lstm_layers][:lstm_layers]
        self.forward = _numbered([Direction(next(keys), wide, hidden) for wide in widths_in])
        self.backward = _numbered([Direction(next(keys), wide, hidden) for wide in widths_in])
        linear = [2 * hidden, 2 * hidden, width] if lstm_layers else [width, hidden, hidden, width]
        self.linear = _numbered([Affine(next(keys), *pair) for pair in itertools.pairwise(linear)])

    def __call__(self) -> Array:
        """The rows [P, D]."""
        x = self.inputs[...]
        for i in range(len(self.forward)):
            x = jnp.concatenate([self.forward[f"layer_{i}"](x, reverse=False), self.backward[f"layer_{i}"](x, reverse=True)], axis=-1)
        for i in range(len(self.linear) - 1):
            x = jax.nn.relu(self.linear[f"layer_{i}"](x))
        return self.linear[f"layer_{len(self.linear) - 1}"](x)


def _numbered(modules: list[Any]) -> nnx.Dict:
    # A list's numbers are no part of a parameter's name, which is made of words.
    return nnx.Dict({f"layer_{i}": module for i, module in enumerate(modules)})


@dataclasses.dataclass(frozen=True)
class PTuning(Prompt):
    """Soft prompts made by a network; further settings are those of `Prompt`.

    Attributes:
      network: `lstm` or `mlp`.
      hidden: M; None is the model's width.
      lstm_layers: of an LSTM.
    """

    network: Literal["lstm", "mlp"] = "lstm"
    hidden: int | None = None
    lstm_layers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in ("lstm", "mlp"):
            raise UserError(f"PTuning.network: wanted 'lstm' or 'mlp', got {self.network!r}")
        if self.hidden is not None:
            fields.check_count("PTuning.hidden", self.hidden)
        fields.check_count("PTuning.lstm_layers", self.lstm_layers)

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts rows and network into the embedding's socket."""
        rows_key, network_key = jax.random.split(key)
        sources = super().attach(model, rows_key, vocabulary=vocabulary)
        embed: Any = model.embed  # type: ignore[attr-defined]
        rows_PD = embed.prompt()
        layers = self.lstm_layers if self.network == "lstm" else 0
        embed.prompt = Encoded(rows_PD, network_key, hidden=self.hidden or rows_PD.shape[1], lstm_layers=layers)
        drawn = {f"embed/prompt/{name}": "initialiser uniform, +-width^-0.5" for name, _ in named_variables(embed.prompt)}
        return drawn | {"embed/prompt/inputs": sources["embed/prompt/rows"]}
