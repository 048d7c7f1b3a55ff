"""Prefixes in a key/value cache: written before everything else once, so that a step of decoding only attends to them.

Axes: N layers, B batch, H heads (of keys), P prefix length, S length, K head width, T queries.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.models.layers import MASKED, Array, behind_prefix

_ATTENTIONS = ("self_attention", "cross_attention")


def length(layers: Any, name: str = "self_attention") -> int:
    """How many keys the prefix of this attention has, the same in all of the stacked layers; 0 where it has none."""
    prefix = _of(layers, name)
    return 0 if prefix is None else int(jax.eval_shape(_made, prefix)[0].shape[-2])


def behind(layers: Any, keys_values: tuple[Array, Array], *, name: str = "self_attention") -> tuple[Array, Array]:
    """Keys and values [N, B, H, S, K] of all layers behind their prefixes, [N, B, H, P + S, K], the same in all rows."""
    prefix = _of(layers, name)
    if prefix is None:
        return keys_values
    bias_S = jnp.zeros(keys_values[0].shape[3])
    return jax.vmap(lambda each, *layer: behind_prefix(each, layer, bias_S)[0])(prefix, *keys_values)


def left_out(layers: Any) -> Any:
    """The layers without their prefixes, for keys and values that hold them (a copy of the module, not of its arrays)."""
    held = [name for name in _ATTENTIONS if _of(layers, name) is not None]
    if held:
        layers = nnx.merge(*nnx.split(layers))
        for name in held:
            getattr(layers, name).attention.prefix = nnx.data(None)
    return layers


def seen(bias: Array, count: int, *, there: bool = True) -> Array:
    """The bias [..., T, S] of keys behind `count` keys that every query sees, or none where they are not `there`: [..., T, count + S]."""
    return jnp.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(count, 0)], constant_values=0.0 if there else MASKED) if count else bias


def _of(layers: Any, name: str) -> Any:
    block = getattr(layers, name, None)
    return None if block is None else getattr(block.attention, "prefix", None)


def _made(prefix: Any) -> tuple[Array, Array]:
    """Keys and values [N, H, P, K] of stacked prefixes."""
    return jax.vmap(lambda each: each())(prefix)
