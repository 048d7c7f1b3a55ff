"""The architecture of decoder-only models as choices, and their plain layers.

`decoder_blocks.py` puts these together, `decoder.py` is the model.

Axes: B batch, T target (queries) length, S source (keys) length, D model width, H heads, G query heads that share a key head, K head width,
F feed-forward, P prompt length.

Sockets are those of `layers.py`, under the same names, so that a method fills a decoder as it fills the decoder of a T5:
`Dense.delta`, `GroupedAttention.prefix` (keys and values `[H / G, P, K]`, taken as they are: not rotated; positions count them),
`k_scale` and `v_scale` `[H / G * K]`, `ActivatedMlp.scale`, `adapter` and `parallel` of both blocks, `Embed.prompt`, and `generator` of the
stack.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.models import blockwise, fused, rope
from prompt_tuning.models.layers import Array, Bias, Linear, Remat, Socket, behind_prefix, dropout, folded, param, scaled, split_heads

KeysValues = tuple[Array, Array]
Angles = tuple[Array, Array] | None


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The architecture of a decoder-only model; the defaults are a small Llama.

    Attributes:
      vocab_size, d_model, d_ff, num_layers: V, D, F, N.
      num_heads, num_kv_heads: H, and how many of keys and values: H / num_kv_heads query heads share one (Ainslie et al. 2023).
      head_width: K.
      norm: "rms" (Zhang & Sennrich 2019) or "layer" with mean and bias.
      norm_plus_one: the stored scale is what is added to 1 (Gemma).
      post_norms: what attention and feed-forward give is normed before it is added (Gemma 2, 3).
      norm_epsilon: added to the variance.
      activation: "silu", "gelu" by its tanh formula, or "gelu_erf", the same by the error function.
      gated: activation(gate) * wi (Shazeer 2020), rather than activation(wi).
      qkv_bias, out_bias, mlp_bias: which products have a bias.
      qk_norm: queries and keys are normed a head (Qwen 3, Gemma 3).
      positions: "rope", or "learned": a table of `max_positions` rows (GPT-2).
      max_positions: rows of the learned table; without one, no limit is checked.
      rope_base, rope_scaling, rope_factor, rope_low_factor, rope_high_factor, rope_original_length, rope_fast, rope_slow: see
        `rope.frequencies`.
      local_rope_base: the base in layers with a window, unscaled; None for the same as elsewhere.
      layer_kinds: "G" for a layer that sees all that came before and "L" for one that sees a window, repeated over the depth.
      window: in an "L" layer a position sees itself and the window - 1 positions before it.
      attention_scale: of queries times keys; None is K^-0.5.
      attention_cap, logit_cap: c * tanh(x / c) of attention scores and of logits (Gemma 2); None is off.
      scaled_embedding: embeddings of tokens (not of prompts, which trained rows need not be told) times D^0.5 (Gemma).
      tied: the head is the embedding.
      latent_width, latent_query_width: widths of the vectors that keys and values, and queries, come from (`latent.py`); 0 for plain
        attention, and for queries made at once. With a latent vector a key is `head_width` coordinates and `rope_width` rotated ones.
      rope_width, value_width: of latent attention.
      experts, experts_per_token, expert_width, shared_experts: of the mixture; 0 experts for none. The shared ones are one wide expert.
      dense_layers: how many of the first layers have a plain feed-forward layer in place of a mixture.
      router, router_groups, router_top_groups, router_scale, router_normed: how experts are chosen and counted, see `latent.Experts`;
        normed weights of a token add up to `router_scale`.
      mask: "causal", or "prefix": positions that the batch marks see each other in both directions.
      dropout_rate, dtype, param_dtype, unroll_layers, remat: as in `T5Config`.
    """

    vocab_size: int = 32000
    d_model: int = 512
    d_ff: int = 1376
    num_layers: int = 8
    num_heads: int = 8
    num_kv_heads: int = 8
    head_width: int = 64
    norm: Literal["rms", "layer"] = "rms"
    norm_plus_one: bool = False
    post_norms: bool = False
    norm_epsilon: float = 1e-5
    activation: Literal["silu", "gelu", "gelu_erf"] = "silu"
    gated: bool = True
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    positions: Literal["rope", "learned"] = "rope"
    max_positions: int = 2048
    rope_base: float = 10000.0
    rope_scaling: rope.Scaling = "none"
    rope_factor: float = 1.0
    rope_low_factor: float = 1.0
    rope_high_factor: float = 4.0
    rope_original_length: int = 8192
    rope_fast: float = 32.0
    rope_slow: float = 1.0
    local_rope_base: float | None = None
    layer_kinds: str = "G"
    window: int = 4096
    attention_scale: float | None = None
    attention_cap: float | None = None
    logit_cap: float | None = None
    scaled_embedding: bool = False
    tied: bool = False
    latent_width: int = 0
    latent_query_width: int = 0
    rope_width: int = 0
    value_width: int = 0
    experts: int = 0
    experts_per_token: int = 0
    expert_width: int = 0
    shared_experts: int = 0
    dense_layers: int = 0
    router: Literal["softmax", "sigmoid"] = "softmax"
    router_groups: int = 1
    router_top_groups: int = 1
    router_scale: float = 1.0
    router_normed: bool = False
    mask: Literal["causal", "prefix"] = "causal"
    dropout_rate: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    unroll_layers: bool | None = None
    remat: Remat | None = None

    def __post_init__(self) -> None:
        for name, wanted in (
            ("norm", ("rms", "layer")),
            ("activation", ("silu", "gelu", "gelu_erf")),
            ("positions", ("rope", "learned")),
            ("rope_scaling", ("none", "linear", "llama3", "yarn")),
            ("router", ("softmax", "sigmoid")),
            ("mask", ("causal", "prefix")),
        ):
            if getattr(self, name) not in wanted:
                raise UserError(f"DecoderConfig.{name}: wanted one of {list(wanted)}, got {getattr(self, name)!r}")
        if self.num_kv_heads < 1 or self.num_heads % self.num_kv_heads:
            raise UserError(f"DecoderConfig.num_kv_heads: wanted a divisor of num_heads ({self.num_heads}), got {self.num_kv_heads}")
        if self.positions == "rope" and self.head_width % 2:
            raise UserError(f"DecoderConfig.head_width: rotary positions want an even width, got {self.head_width}")
        if self.latent_width and min(self.rope_width, self.value_width) < 1:
            raise UserError("DecoderConfig.latent_width: latent attention wants rope_width and value_width of 1 or more")
        if self.latent_width and self.num_kv_heads != self.num_heads:
            raise UserError(f"DecoderConfig.num_kv_heads: latent attention wants as many as num_heads ({self.num_heads})")
        if self.experts and not (0 < self.experts_per_token <= self.experts and self.expert_width and self.shared_experts):
            raise UserError("DecoderConfig.experts: a mixture wants experts_per_token, expert_width and shared_experts of 1 or more")
        if self.experts and not 0 <= self.dense_layers < self.num_layers:
            raise UserError(f"DecoderConfig.dense_layers: wanted 0 or more and fewer than num_layers, got {self.dense_layers}")
        if not self.layer_kinds or set(self.layer_kinds) - set("GL"):
            raise UserError(f"DecoderConfig.layer_kinds: wanted letters G (global) and L (window), as in 'LG', got {self.layer_kinds!r}")

    @property
    def key_width(self) -> int:
        """Coordinates of a head's key."""
        return self.head_width + self.rope_width if self.latent_width else self.head_width

    @property
    def activate(self) -> Callable[[Array], Array]:
        """The activation as a function."""
        gelu = functools.partial(jax.nn.gelu, approximate=self.activation == "gelu")
        return jax.nn.silu if self.activation == "silu" else gelu

    @property
    def local_layers(self) -> tuple[bool, ...]:
        """For each layer whether it sees a window only."""
        repeats = math.ceil(self.num_layers / len(self.layer_kinds))
        return tuple(kind == "L" for kind in (self.layer_kinds * repeats)[: self.num_layers])

    def turns(self, *, local: bool) -> np.ndarray:
        """The rotary frequencies of layers with or without a window, float32 [K / 2]."""
        width = self.rope_width if self.latent_width else self.head_width
        if local and self.local_rope_base is not None:
            return rope.frequencies(width, base=self.local_rope_base)
        return rope.frequencies(
            width,
            base=self.rope_base,
            scaling=self.rope_scaling,
            factor=self.rope_factor,
            low_factor=self.rope_low_factor,
            high_factor=self.rope_high_factor,
            original_length=self.rope_original_length,
            fast=self.rope_fast,
            slow=self.rope_slow,
        )


class Dense(Linear):
    """A matrix product with or without a bias. Socket: `delta`."""

    def __init__(self, rngs: nnx.Rngs, shape: tuple[int, int], *, axes: tuple[str, str], bias: bool, dtype: str):
        super().__init__(rngs, shape, std=shape[0] ** -0.5, axes=axes, dtype=dtype)
        self.bias = nnx.Param(jnp.zeros(shape[1:], dtype), axes=axes[1:]) if bias else nnx.data(None)

    def __call__(self, x_BSI: Array, *, key: Array | None = None) -> Array:
        """The product [B, S, O], plus the bias; `key` turns the dropout of what is plugged in on."""
        y_BSO = super().__call__(x_BSI, key=key)
        if self.bias is not None:
            y_BSO = y_BSO + jnp.broadcast_to(self.bias[...].astype(y_BSO.dtype), y_BSO.shape)
        return y_BSO


class Norm(nnx.Module):
    """Root-mean-square or layer norm over the last axis, computed in float32."""

    def __init__(self, width: int, config: DecoderConfig, *, kind: str):
        self.scale = nnx.Param((jnp.zeros if config.norm_plus_one else jnp.ones)((width,), config.param_dtype), axes=("embed",))
        self.bias = nnx.Param(jnp.zeros((width,), config.param_dtype), axes=("embed",)) if kind == "layer" else nnx.data(None)
        self.plus_one = config.norm_plus_one
        self.epsilon = config.norm_epsilon

    def __call__(self, x: Array) -> Array:
        """The normed input."""
        y = x.astype(jnp.float32)
        if self.bias is not None:
            y = y - jnp.mean(y, axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.epsilon)
        scale = self.scale[...].astype(jnp.float32)
        y = y * jnp.broadcast_to(scale + 1.0 if self.plus_one else scale, y.shape)
        if self.bias is not None:
            y = y + jnp.broadcast_to(self.bias[...].astype(jnp.float32), y.shape)
        return y.astype(x.dtype)


def capped(x: Array, cap: float | None) -> Array:
    """Squeezed into (-cap, cap) by a tanh; the identity where there is no cap (Gemma 2, arXiv:2408.00118, section 2)."""
    return x if cap is None else cap * jnp.tanh(x / cap)


class GroupedAttention(nnx.Module):
    """Attention in which G query heads share a key head. Sockets: `prefix`, `k_scale`, `v_scale`."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig):
        wide, narrow = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
        common: dict[str, Any] = {"axes": ("embed", "heads"), "bias": config.qkv_bias, "dtype": config.param_dtype}
        self.query = Dense(rngs, (config.d_model, wide), **common)
        self.key = Dense(rngs, (config.d_model, narrow), **common)
        self.value = Dense(rngs, (config.d_model, narrow), **common)
        self.out = Dense(rngs, (wide, config.d_model), axes=("heads", "embed"), bias=config.out_bias, dtype=config.param_dtype)
        self.query_norm = Norm(config.head_width, config, kind="rms") if config.qk_norm else nnx.data(None)
        self.key_norm = Norm(config.head_width, config, kind="rms") if config.qk_norm else nnx.data(None)
        self.config = config
        self.prefix: Socket = nnx.data(None)
        self.k_scale: Socket = nnx.data(None)
        self.v_scale: Socket = nnx.data(None)

    def _heads(self, x_BSI: Array, norm: Any, turned: Angles) -> Array:
        x_BHSK = split_heads(x_BSI, self.config.head_width)
        x_BHSK = x_BHSK if norm is None else norm(x_BHSK)
        return x_BHSK if turned is None else rope.rotate(x_BHSK, turned)

    def keys_values(self, x_BSD: Array, turned: Angles, key: Array | None = None) -> KeysValues:
        """Keys, normed and rotated, and values, both [B, H / G, S, K], without the prefix."""
        k = scaled(self.key(x_BSD, key=folded(key, 1)), self.k_scale)
        v = scaled(self.value(x_BSD, key=folded(key, 2)), self.v_scale)
        return self._heads(k, self.key_norm, turned), self._heads(v, None, None)

    def __call__(
        self, x_BTD: Array, keys_values: KeysValues, bias: Array, *, turned: Angles, causal: bool = False, key: Array | None = None
    ) -> Array:
        """Attends from x_BTD.

        Args:
          x_BTD: what the queries are made of.
          keys_values: both [B, H / G, S, K].
          bias: float32, broadcastable to [B, H / G, T, S]: `MASKED` where attention is forbidden.
          turned: the queries' rotary angles.
          causal: whether `bias` forbids every query all keys behind it, which then need not be read.
          key: of the dropout on attention weights and in what is plugged in.

        Returns:
          y_BTD.
        """
        q_BHTK = self._heads(self.query(x_BTD, key=folded(key, 0)), self.query_norm, turned)
        keys_values, bias = behind_prefix(self.prefix, keys_values, bias)
        return self.out(attended(q_BHTK, keys_values, bias, self.config, causal=causal, key=key), key=folded(key, 3))


def attended(
    q_BHTK: Array, keys_values: KeysValues, bias: Array, config: DecoderConfig, *, causal: bool = False, key: Array | None
) -> Array:
    """What queries take from keys and values [B, H / G, S, K], heads side by side: [B, T, H * K]; arguments as of `GroupedAttention`."""
    k_BHSK, v_BHSK = keys_values
    batch, heads, length, width = q_BHTK.shape
    scale = width**-0.5 if config.attention_scale is None else config.attention_scale
    dropped = key is not None and config.dropout_rate > 0
    if fused.serves(q_BHTK, v_BHSK, dropout=dropped, capped=config.attention_cap is not None):
        y_BHTK = fused.attend(q_BHTK, k_BHSK, v_BHSK, bias, scale=scale)
        return y_BHTK.transpose(0, 2, 1, 3).reshape(batch, length, -1)
    if blockwise.serves(q_BHTK, k_BHSK, dropout=dropped, causal=causal):
        y_BHTK = blockwise.attend(q_BHTK, k_BHSK, v_BHSK, Bias(None, bias), scale=scale, cap=config.attention_cap, causal=causal)
        return y_BHTK.transpose(0, 2, 1, 3).reshape(batch, length, -1)
    q_BHGTK = q_BHTK.reshape(batch, k_BHSK.shape[1], heads // k_BHSK.shape[1], length, width)
    scores = jnp.einsum("bhgtk,bhsk->bhgts", q_BHGTK, k_BHSK, preferred_element_type=jnp.float32)
    scores = capped(scores * scale, config.attention_cap) + bias[:, :, None]
    weights = dropout(jax.nn.softmax(scores, axis=-1).astype(q_BHTK.dtype), config.dropout_rate, key)
    y = jnp.einsum("bhgts,bhsk->bhgtk", weights, v_BHSK, preferred_element_type=jnp.float32).astype(q_BHTK.dtype)
    return y.reshape(batch, heads, length, -1).transpose(0, 2, 1, 3).reshape(batch, length, -1)


class ActivatedMlp(nnx.Module):
    """The feed-forward layer. Socket: `scale`, on the inner activation."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, *, inner: int):
        common: dict[str, Any] = {"bias": config.mlp_bias, "dtype": config.param_dtype}
        self.wi = Dense(rngs, (config.d_model, inner), axes=("embed", "mlp"), **common)
        self.gate = Dense(rngs, (config.d_model, inner), axes=("embed", "mlp"), **common) if config.gated else nnx.data(None)
        self.wo = Dense(rngs, (inner, config.d_model), axes=("mlp", "embed"), **common)
        self.config = config
        self.scale: Socket = nnx.data(None)

    def __call__(self, x_BSD: Array, *, key: Array | None = None) -> Array:
        """The layer's output [B, S, D]; `key` turns dropout on the inner activation on."""
        activation = self.config.activate
        h_BSF = self.wi(x_BSD, key=folded(key, 0))
        h_BSF = activation(h_BSF) if self.gate is None else activation(self.gate(x_BSD, key=folded(key, 1))) * h_BSF
        h_BSF = scaled(h_BSF, self.scale)
        return self.wo(dropout(h_BSF, self.config.dropout_rate, key), key=folded(key, 2))


def position_table(rngs: nnx.Rngs, config: DecoderConfig) -> Any:
    """Learned embeddings of positions [max_positions, D], or None."""
    if config.positions != "learned":
        return nnx.data(None)
    return param(rngs, (config.max_positions, config.d_model), std=0.02, axes=("positions", "embed"), dtype=config.param_dtype)
