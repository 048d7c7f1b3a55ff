"""Compacter: adapters whose matrices are sums of Kronecker products, of which every layer shares one factor.

Paper: Karimi Mahabadi, Henderson, Ruder 2021, "Compacter: Efficient Low-Rank Hypercomplex Adapter Layers" (arXiv:2106.04647).

What this file follows: W = sum_i A_i (x) (s_i t_i), i = 1..n (equations 4 and 5), A [n, n, n] shared, s and t of rank `rank` in each layer;
a bottleneck with GELU after each sub-layer, layer norms trained along; A drawn from N(0, 1e-4), s and t Glorot-uniform, as in the released
code. Compacter++ (after feed-forward layers alone): `targets = (".*/feed_forward",)`.

Deviation: A is shared by all adapters of a stack, so that encoder and decoder have one each; the paper's is one for the model.

Axes: N layers, n summands, R rank, D model width, M bottleneck width; I and O input and output width, D and M or M and D.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods import sites
from prompt_tuning.methods.adapter import Bottleneck
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Matching, Sources, Which


def kronecker_sum(rule: Array, left: Array, right: Array) -> Array:
    """sum_i A_i (x) (s_i t_i) for each layer: [n, n, n], [N, n, I / n, R], [N, n, R, O / n] to [N, I, O]."""
    product = jnp.einsum("iab,lipr,lirq->lapbq", rule, left, right)
    layers, a, p, b, q = product.shape
    return product.reshape(layers, a * p, b * q)


class Factors(nnx.Module):
    """The adapter of one sub-layer in all N layers, but for the shared factor."""

    def __init__(self, key: Array, *, layers: int, n: int, rank: int, widths: tuple[int, int]):
        def glorot(key: Array, fan_in: int, fan_out: int) -> Array:
            bound = (6 / (fan_in + fan_out)) ** 0.5
            return jax.random.uniform(key, (layers, n, fan_in, fan_out), jnp.float32, -bound, bound)

        keys = jax.random.split(key, 4)
        wide, narrow = widths
        left, right = ("summand", "part", "rank"), ("summand", "rank", "part")
        self.down_left = Tunable(glorot(keys[0], wide // n, rank), axes=left)
        self.down_right = Tunable(glorot(keys[1], rank, narrow // n), axes=right)
        self.up_left = Tunable(glorot(keys[2], narrow // n, rank), axes=left)
        self.up_right = Tunable(glorot(keys[3], rank, wide // n), axes=right)
        self.down_bias = Tunable(jnp.zeros((layers, narrow), jnp.float32), axes=("bottleneck",))
        self.up_bias = Tunable(jnp.zeros((layers, wide), jnp.float32), axes=("embed",))


class Generator(nnx.Module):
    """What stands in the socket `Stack.generator`: the shared factor [n, n, n], and the others by the sub-layer's name."""

    def __init__(self, rule: Array, factors: dict[str, Factors]):
        self.rule = Tunable(rule, axes=("summand", "rule", "rule"))
        self.factors = nnx.Dict(factors)

    def __call__(self, layers: nnx.Module) -> nnx.Module:
        """The layers, with adapters in the sockets of a copy of the module (its arrays are not copied)."""
        layers = nnx.merge(*nnx.split(layers))
        rule = self.rule[...]
        for name, own in self.factors.items():
            down = kronecker_sum(rule, own.down_left[...], own.down_right[...])
            up = kronecker_sum(rule, own.up_left[...], own.up_right[...])
            made = Bottleneck(down, up, activation="gelu", scale=1.0, residual=True)
            made.down_bias.set_value(own.down_bias[...])
            made.up_bias.set_value(own.up_bias[...])
            getattr(layers, name).adapter = made
        return layers


@dataclasses.dataclass(frozen=True)
class Compacter:
    """Hypercomplex adapters.

    Attributes:
      width: M; the paper takes 24 for T5 base.
      n: summands; divides M and the model's width.
      rank: R.
      targets: regular expressions for whole names of sub-layers.
      train_norms: the base's layer norms are trained along.
    """

    width: int = 24
    n: int = 4
    rank: int = 1
    targets: tuple[str, ...] = (".*",)
    train_norms: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # gin gives lists.
        for name in ("width", "n", "rank"):
            fields.check_count(f"Compacter.{name}", getattr(self, name))

    @property
    def layout(self) -> PromptLayout:
        """No prompt."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """The factors, and the layer norms if they are trained along."""
        return Matching((".*/generator/.*", ".*norm/scale")) if self.train_norms else Tunable

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Gives each stack what makes its adapters."""
        del vocabulary
        factors: dict[str, dict[str, Factors]] = {}
        sources: Sources = {}
        for name, block in sites.with_socket(model, "adapter", self.targets, where="Compacter.targets").items():
            *stacked, width = block.norm.scale.shape
            stack, _, place = name.partition("/layers/")
            if len(stacked) != 1 or "/" in place or not place:
                raise UserError(f"Compacter.targets: {name} is not a sub-layer of stacked layers; choose others")
            if width % self.n or self.width % self.n:
                raise UserError(f"Compacter.n: wanted a divisor of the widths {width} and {self.width}, got {self.n}")
            own = sites.key_for(key, name)
            made = Factors(own, layers=stacked[0], n=self.n, rank=self.rank, widths=(width, self.width))
            factors.setdefault(stack, {})[place] = made
            where = f"{stack}/generator/factors/{place}"
            drawn = dict.fromkeys(("down_left", "down_right", "up_left", "up_right"), "initialiser Glorot uniform")
            drawn |= dict.fromkeys(("down_bias", "up_bias"), "initialiser zeros")
            sources |= {f"{where}/{part}": source for part, source in drawn.items()}
        for name, each in factors.items():
            rule = 0.01 * jax.random.normal(sites.key_for(key, name), (self.n,) * 3, jnp.float32)
            refusal = f"Compacter: {name} has no free place for what makes its adapters; use another method with it"
            sites.give_generator(model, name, Generator(rule, each), refusal=refusal)
            sources[f"{name}/generator/rule"] = "initialiser normal, std 0.01"
        return sources
