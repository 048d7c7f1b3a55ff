"""Prefix tuning: P trained keys and values stand before those of the sequence in every attention of a frozen model.

Papers: Li & Liang 2021, "Prefix-Tuning" (arXiv:2101.00190), whose prefixes an MLP makes while they are trained; Liu et al. 2022,
"P-Tuning v2" (arXiv:2110.07602), which trains them as they are. Code: XiangLisaLi/PrefixTuning, THUDM/P-tuning-v2.

What this file follows: an encoder-decoder has three prefixes, one for each kind of attention: encoder, decoder, and decoder to encoder
(2101.00190, section 4.2). With `hidden`, each has a network of its own, Embedding [P, D] -> Linear -> tanh -> Linear to the keys and values
of all layers, with PyTorch's first values, as in the released code; `drop_network` replaces it by what it makes, after training. Without
`hidden` (P-tuning v2), keys and values are drawn from N(0, std^2); its code draws them with std 1.

The paper's open point on a T5: its attention adds a bias by relative position, and a prefix has no position. Here that bias is zero for
prefix keys, in every attention. (PEFT lets a decoder's prefix take the positions before the sequence, and has no other prefixes.)

Every position sees the whole prefix; in packed rows so does every segment. No dropout acts on the prefix.

Axes: P prefix length, D model width, M hidden width, H heads, K head width, N layers.
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
from prompt_tuning.methods.prompt_networks import uniform
from prompt_tuning.models.latent import LatentAttention
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources, Which


class KeysValues(nnx.Module):
    """What stands in the socket `Attention.prefix`: keys and values [..., H, P, K]."""

    def __init__(self, keys_HPK: Array, values_HPK: Array):
        self.keys = Tunable(keys_HPK, axes=("heads", "prompt", "width"))
        self.values = Tunable(values_HPK, axes=("heads", "prompt", "width"))

    def __call__(self) -> tuple[Array, Array]:
        """Keys and values."""
        return self.keys[...], self.values[...]


class Network(nnx.Module):
    """Makes the keys and values of one attention in all N layers."""

    def __init__(self, key: Array, *, length: int, width: int, hidden: int, layers: int, heads: int, head_width: int):
        keys = jax.random.split(key, 5)
        self.embedding = Tunable(jax.random.normal(keys[0], (length, width)), axes=("prompt", "embed"))
        self.wi = Tunable(uniform(keys[1], (width, hidden), width), axes=("embed", "mlp"))
        self.wi_bias = Tunable(uniform(keys[2], (hidden,), width), axes=("mlp",))
        # Keys and values of all layers: [M, N, 2, H, K].
        self.wo = Tunable(uniform(keys[3], (hidden, layers, 2, heads, head_width), hidden), axes=("mlp", "layers", "two", "heads", "width"))
        self.wo_bias = Tunable(uniform(keys[4], (layers, 2, heads, head_width), hidden), axes=("layers", "two", "heads", "width"))

    def __call__(self) -> tuple[Array, Array]:
        """Keys and values [N, H, P, K]."""
        h_PM = jnp.einsum("pd,dm->pm", self.embedding[...], self.wi[...])
        h_PM = jnp.tanh(h_PM + jnp.broadcast_to(self.wi_bias[...], h_PM.shape))
        made = jnp.einsum("pm,mnchk->cnhpk", h_PM, self.wo[...]) + self.wo_bias[...].transpose(1, 0, 2, 3)[:, :, :, None]
        return made[0], made[1]


class Generator(nnx.Module):
    """What stands in the socket `Stack.generator`: a network for each kind of attention of the stack, by its name."""

    def __init__(self, networks: dict[str, Network]):
        self.networks = nnx.Dict(networks)

    def __call__(self, layers: nnx.Module) -> nnx.Module:
        """The layers, with prefixes in the sockets of a copy of the module (its arrays are not copied)."""
        layers = nnx.merge(*nnx.split(layers))
        for name, network in self.networks.items():
            getattr(layers, name).attention.prefix = KeysValues(*network())
        return layers


@dataclasses.dataclass(frozen=True)
class Prefix:
    """Trained keys and values.

    Attributes:
      length: P, in each attention.
      targets: regular expressions for whole names of attentions, as in `decoder/.*`; the default is all of them, the paper's three.
      hidden: M, the hidden width of the networks that make the prefixes; the paper takes 512 and 800. None trains them as they are.
      std: of the first keys and values where there is no network.
    """

    length: int = 20
    targets: tuple[str, ...] = (".*",)
    hidden: int | None = 512
    std: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # gin gives lists.
        fields.check_count("Prefix.length", self.length)
        if self.hidden is not None:
            fields.check_count("Prefix.hidden", self.hidden)
        if not self.std >= 0:
            raise UserError(f"Prefix.std: wanted 0 or more, got {self.std!r}")

    @property
    def layout(self) -> PromptLayout:
        """No prompt in the sequences."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """The prefixes, or what makes them."""
        return Tunable

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Fills the sockets of the attentions, or gives each stack the networks that will."""
        del vocabulary
        attentions = sites.with_socket(model, "prefix", self.targets, where="Prefix.targets")
        sources: Sources = {}
        networks: dict[str, dict[str, Network]] = {}
        for name, attention in attentions.items():
            own = sites.key_for(key, name)
            stacked, heads, key_width, value_width = _sizes(attention)
            if self.hidden is None:
                drawn = self.std * jax.random.normal(own, (*stacked, heads, self.length, key_width + value_width), jnp.float32)
                attention.prefix = KeysValues(*jnp.split(drawn, [key_width], axis=-1))
                sources |= {f"{name}/prefix/{part}": f"initialiser normal, std {self.std}" for part in ("keys", "values")}
                continue
            stack, _, place = name.partition("/layers/")
            block, _, rest = place.partition("/")
            if rest != "attention" or len(stacked) != 1:
                raise UserError(f"Prefix.hidden: {name} has no place for a network in its stack; set Prefix.hidden = None")
            if key_width != value_width:
                raise UserError(
                    f"Prefix.hidden: a network makes keys and values of one width, and those of {name} have {key_width} and {value_width}; "
                    "set Prefix.hidden = None"
                )
            networks.setdefault(stack, {})[block] = Network(
                own,
                length=self.length,
                width=attention.key.kernel.shape[-2],
                hidden=self.hidden,
                layers=stacked[0],
                heads=heads,
                head_width=key_width,
            )
            sources |= {f"{stack}/generator/networks/{block}/embedding": "initialiser normal, std 1.0"}
            parts = ("wi", "wi_bias", "wo", "wo_bias")
            sources |= {f"{stack}/generator/networks/{block}/{part}": "initialiser uniform, +-fan_in^-0.5" for part in parts}
        for name, made in networks.items():
            refusal = f"Prefix.hidden: {name} has no free place for the networks; set Prefix.hidden = None"
            sites.give_generator(model, name, Generator(made), refusal=refusal)
        return sources


def drop_network(model: nnx.Module) -> None:
    """Replaces the networks by the prefixes they make, in place: the model is then as `Prefix(hidden=None)` makes it."""
    stacks: list[Any] = [
        stack for stack in sites.modules(model, nnx.Module).values() if isinstance(getattr(stack, "generator", None), Generator)
    ]
    if not stacks:
        raise UserError("drop_network: the model has no network that makes prefixes; wanted one that Prefix with `hidden` was attached to")
    for stack in stacks:
        stack.layers = stack.generator(stack.layers)
        stack.generator = nnx.data(None)


def _sizes(attention: Any) -> tuple[tuple[int, ...], int, int, int]:
    """Axes of stacked layers, heads of keys and values, and the width of a key and of a value."""
    if isinstance(attention, LatentAttention):
        config = attention.config
        return attention.up.kernel.shape[:-2], config.num_heads, config.key_width, config.value_width
    *stacked, _, inner = attention.key.kernel.shape
    head_width = attention.head_width if hasattr(attention, "head_width") else attention.config.head_width
    return tuple(stacked), inner // head_width, head_width, head_width
