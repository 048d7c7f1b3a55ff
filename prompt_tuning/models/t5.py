"""T5, all published variants, from the layers of `layers.py` (Raffel et al. 2020, arXiv:1910.10683).

Axes: B batch, S source length, T target length, L cache length, P prefix length, D model width, H heads, K head width, F feed-forward, V
vocabulary, N layers.

| variant | activation | head | relative bias |
|---|---|---|---|
| v1.0 | ReLU | tied, logits scaled by D^-0.5 | one table a stack |
| v1.1, LM-adapted, mT5 (2010.11934), ByT5 (2105.13626) | gated GELU | untied | one table a stack |
| UMT5 (2304.09151) | gated GELU | untied | one table a layer |

Prompt slots are data: an integer array beside the tokens says where prompt vectors stand, so any placement, packing and mixed-task batches
come from one mechanism (`Embed` in layers.py, `data/features.py`). T5 knows relative positions only, and the segments of a packed row are
contiguous, so that distances within a segment are distances in the row: packing needs no positions here, only a mask.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.models import prefixes
from prompt_tuning.models.layers import (
    MASKED,
    Array,
    Attention,
    Bias,
    Embed,
    Linear,
    Mlp,
    RelativeBias,
    Remat,
    RMSNorm,
    Socket,
    adapted,
    choices_as_rows,
    dropout,
    entering,
    kept,
    split_key,
    unrolled,
)

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class T5Config:
    """The architecture of a T5.

    Attributes:
      vocab_size: rows of the embedding, V.
      d_model, d_ff, num_heads, d_kv: D, F, H, K.
      num_encoder_layers, num_decoder_layers: N of each stack.
      gated: gated GELU (v1.1 and later) rather than ReLU.
      tied: the head is the embedding, and logits are scaled by D^-0.5 (v1.0).
      per_layer_bias: every layer has its own relative bias (UMT5).
      relative_buckets, relative_max_distance: of the relative bias, in tokens.
      dropout_rate: 0..1, used only where a dropout key is given.
      layer_norm_epsilon: added to the mean square.
      dtype: of activations: "float32" or "bfloat16".
      param_dtype: of base parameters.
      unroll_layers: True, False, or None: unrolled on a CPU up to 12 layers, else scanned.
      remat: what is kept of a layer for the backward pass. "none" computes nothing again; "products" keeps the results of matrix products
        and attention; "full" keeps the layer's input alone. None: "none" on a CPU, else "products".
    """

    vocab_size: int = 32128
    d_model: int = 512
    d_ff: int = 1024
    num_heads: int = 6
    d_kv: int = 64
    num_encoder_layers: int = 8
    num_decoder_layers: int = 8
    gated: bool = True
    tied: bool = False
    per_layer_bias: bool = False
    relative_buckets: int = 32
    relative_max_distance: int = 128
    dropout_rate: float = 0.0
    layer_norm_epsilon: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    unroll_layers: bool | None = None
    remat: Remat | None = None


def _relative_bias(config: T5Config, rngs: nnx.Rngs, *, bidirectional: bool) -> RelativeBias:
    return RelativeBias(
        rngs,
        num_buckets=config.relative_buckets,
        max_distance=config.relative_max_distance,
        num_heads=config.num_heads,
        bidirectional=bidirectional,
        std=config.d_model**-0.5,
        dtype=config.param_dtype,
    )


class AttentionBlock(nnx.Module):
    """Norm, attention, residual. Sockets: `adapter`, `parallel`."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs, *, relative_bias: bool, bidirectional: bool = False):
        self.norm = RMSNorm(config.d_model, epsilon=config.layer_norm_epsilon, dtype=config.param_dtype)
        self.attention = Attention(
            rngs,
            width=config.d_model,
            num_heads=config.num_heads,
            head_width=config.d_kv,
            dropout_rate=config.dropout_rate,
            dtype=config.param_dtype,
        )
        self.relative_bias = _relative_bias(config, rngs, bidirectional=bidirectional) if relative_bias else nnx.data(None)
        self.dropout_rate = config.dropout_rate
        self.adapter: Socket = nnx.data(None)
        self.parallel: Socket = nnx.data(None)

    def __call__(
        self, x_BTD: Array, keys_values: Callable[[Array, Array | None], Any], bias: Bias, *, causal: bool = False, key: Array | None
    ) -> Array:
        """Adds to x_BTD what it attends to; `keys_values` makes keys and values from the normed input and a dropout key."""
        attention_key, residual_key = split_key(key, 2)
        normed_BTD = self.norm(x_BTD)
        y_BTD = self.attention(normed_BTD, keys_values(normed_BTD, attention_key), bias, causal=causal, key=attention_key)
        return x_BTD + dropout(adapted(self, normed_BTD, y_BTD), self.dropout_rate, residual_key)


class MlpBlock(nnx.Module):
    """Norm, feed-forward, residual. Sockets: `adapter`, `parallel`."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        self.norm = RMSNorm(config.d_model, epsilon=config.layer_norm_epsilon, dtype=config.param_dtype)
        self.mlp = Mlp(
            rngs,
            width=config.d_model,
            inner=config.d_ff,
            gated=config.gated,
            dropout_rate=config.dropout_rate,
            dtype=config.param_dtype,
        )
        self.dropout_rate = config.dropout_rate
        self.adapter: Socket = nnx.data(None)
        self.parallel: Socket = nnx.data(None)

    def __call__(self, x_BTD: Array, *, key: Array | None) -> Array:
        """Adds to x_BTD what the feed-forward layer makes of it."""
        inner_key, residual_key = split_key(key, 2)
        normed_BTD = self.norm(x_BTD)
        y_BTD = self.mlp(normed_BTD, key=inner_key)
        return x_BTD + dropout(adapted(self, normed_BTD, y_BTD), self.dropout_rate, residual_key)


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward. Socket: `prompt`."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        self.self_attention = AttentionBlock(config, rngs, relative_bias=config.per_layer_bias, bidirectional=True)
        self.feed_forward = MlpBlock(config, rngs)
        self.prompt: Socket = nnx.data(None)


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        self.self_attention = AttentionBlock(config, rngs, relative_bias=config.per_layer_bias)
        self.cross_attention = AttentionBlock(config, rngs, relative_bias=False)
        self.feed_forward = MlpBlock(config, rngs)


class Stack(nnx.Module):
    """N layers, their weights stacked on a leading axis, a relative bias (unless each layer has its own) and the final norm.

    Sockets: `generator`; `visibility`, read by the encoder.
    """

    def __init__(
        self, config: T5Config, rngs: nnx.Rngs, layer: Callable[[T5Config, nnx.Rngs], nnx.Module], *, num_layers: int, bidirectional: bool
    ):
        self.layers = nnx.vmap(lambda r: layer(config, r), in_axes=0, out_axes=0)(rngs.split(num_layers))
        self.relative_bias = nnx.data(None) if config.per_layer_bias else _relative_bias(config, rngs, bidirectional=bidirectional)
        self.norm = RMSNorm(config.d_model, epsilon=config.layer_norm_epsilon, dtype=config.param_dtype)
        self.num_layers = num_layers
        self.generator: Socket = nnx.data(None)
        self.visibility: Socket = nnx.data(None)

    def filled(self) -> nnx.Module:
        """The layers to run."""
        return self.layers if self.generator is None else self.generator(self.layers)


class T5(nnx.Module):
    """An encoder-decoder T5. Sockets are empty until a method fills them."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(rngs, vocab_size=config.vocab_size, width=config.d_model, dtype=config.param_dtype)
        self.encoder = Stack(config, rngs, EncoderLayer, num_layers=config.num_encoder_layers, bidirectional=True)
        self.decoder = Stack(config, rngs, DecoderLayer, num_layers=config.num_decoder_layers, bidirectional=False)
        self.head = (
            nnx.data(None)
            if config.tied
            else Linear(
                rngs, (config.d_model, config.vocab_size), std=config.d_model**-0.5, axes=("embed", "vocab"), dtype=config.param_dtype
            )
        )

    def __call__(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """Logits [B, T, V] in float32 of a batch as `data.features.layout` makes it.

        Args:
          batch: `encoder_input_tokens`, `encoder_segment_ids` [B, S]; `decoder_input_tokens`, `decoder_segment_ids` [B, T]; where
            there are prompts `encoder_prompt_slots`, `decoder_prompt_slots`. `encoder_positions` and `decoder_positions` say that rows are
            packed. Answer choices are `decoder_` arrays [B, C, T], all of which read their example's inputs; the logits are [B, C, T, V].
          dropout_key: turns dropout on.
        """
        return self.logits(self.hidden(batch, dropout_key=dropout_key)).reshape(*batch["decoder_input_tokens"].shape, -1)

    def hidden(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """What the head reads of a batch, [B, T, D]; of answer choices, one behind the other, [B, C * T, D]."""
        encoder_key, decoder_key = split_key(dropout_key, 2)
        encoded_BSD = self.encode(
            batch["encoder_input_tokens"],
            slots_BS=batch.get("encoder_prompt_slots"),
            segment_ids_BS=batch["encoder_segment_ids"],
            packed="encoder_positions" in batch,
            dropout_key=encoder_key,
        )
        x_BTD = self.decode(choices_as_rows(batch), encoded_BSD, dropout_key=decoder_key)
        return x_BTD.reshape(encoded_BSD.shape[0], -1, x_BTD.shape[-1])

    def encode(
        self,
        tokens_BS: Array,
        *,
        segment_ids_BS: Array,
        slots_BS: Array | None = None,
        packed: bool = False,
        dropout_key: Array | None = None,
    ) -> Array:
        """The encoder's output [B, S, D]; segment id 0 is padding, and in packed rows segments do not see each other."""
        embed_key, final_key, layers_key = split_key(dropout_key, 3)
        x_BSD = self.embed(tokens_BS, slots_BS, self.config.dtype, segment_ids_BS=segment_ids_BS)
        x_BSD = dropout(x_BSD, self.config.dropout_rate, embed_key)
        mask = _mask(segment_ids_BS, segment_ids_BS, packed=packed)
        stack = self.encoder
        if stack.visibility is not None and slots_BS is not None:
            mask = mask + stack.visibility(slots_BS)

        def biased(own: Any) -> Bias:
            return Bias(None, mask) if own is None else own.among(tokens_BS.shape[1], mask)

        shared_bias = biased(stack.relative_bias)

        def layer(x_BSD: Array, scanned: Any) -> tuple[Array, None]:
            block, key = scanned
            attention_key, mlp_key = split_key(key, 2)
            x_BSD = entering(block, x_BSD, slots_BS)
            attend = block.self_attention
            bias = shared_bias if attend.relative_bias is None else biased(attend.relative_bias)
            x_BSD = attend(x_BSD, attend.attention.keys_values, bias, key=attention_key)
            return block.feed_forward(x_BSD, key=mlp_key), None

        x_BSD, _ = self._over_layers(layer, x_BSD, (stack.filled(), self._keys(layers_key, stack)), stack)
        return dropout(stack.norm(x_BSD), self.config.dropout_rate, final_key)

    def decode(self, batch: Batch, encoded_BSD: Array, *, dropout_key: Array | None = None) -> Array:
        """What the head reads [B, T, D] of given decoder inputs, all positions at once; keys of `batch` as in `__call__`.

        With C decoder rows to an encoded row, decoder row r reads encoded row r // C, whose keys and values are computed once.
        """
        embed_key, final_key, layers_key = split_key(dropout_key, 3)
        tokens_BT = batch["decoder_input_tokens"]
        segment_ids_BT = batch["decoder_segment_ids"]
        packed = "decoder_positions" in batch
        x_BTD = self.embed(tokens_BT, batch.get("decoder_prompt_slots"), self.config.dtype)
        x_BTD = dropout(x_BTD, self.config.dropout_rate, embed_key)
        positions = jnp.arange(tokens_BT.shape[1])
        causal = jnp.where(positions[:, None] >= positions[None, :], 0.0, MASKED)[None, None]
        # Padding stands after the targets, so in unpacked rows the causal mask alone keeps it out of every position that counts.
        self_mask = causal + _mask(segment_ids_BT, segment_ids_BT, packed=True) if packed else causal
        cross_bias = Bias(None, _mask(segment_ids_BT, batch["encoder_segment_ids"], packed=packed))
        stack = self.decoder

        def biased(own: Any) -> Bias:
            return Bias(None, self_mask) if own is None else own.among(tokens_BT.shape[1], self_mask)

        shared_bias = biased(stack.relative_bias)

        def layer(x_BTD: Array, scanned: Any) -> tuple[Array, None]:
            block, key = scanned
            self_key, cross_key, mlp_key = split_key(key, 3)
            attend, cross = block.self_attention, block.cross_attention
            bias = shared_bias if attend.relative_bias is None else biased(attend.relative_bias)
            x_BTD = attend(x_BTD, attend.attention.keys_values, bias, causal=True, key=self_key)
            # What the rows of one example ask of it stands in one sequence: positions do not matter here.
            asking = x_BTD.reshape(encoded_BSD.shape[0], -1, x_BTD.shape[-1])
            asking = cross(asking, lambda _, key: cross.attention.keys_values(encoded_BSD, key), cross_bias, key=cross_key)
            x_BTD = asking.reshape(x_BTD.shape)
            return block.feed_forward(x_BTD, key=mlp_key), None

        x_BTD, _ = self._over_layers(layer, x_BTD, (stack.filled(), self._keys(layers_key, stack)), stack)
        return dropout(stack.norm(x_BTD), self.config.dropout_rate, final_key)

    def init_cache(self, encoded_BSD: Array, encoder_segment_ids_BS: Array, *, length: int) -> dict[str, Array]:
        """A cache for `length` decoder positions, with the prefixes and the keys and values of the encoder's output computed once.

        Returns:
          `self_keys`, `self_values` [N, B, H, P + L, K], `cross_keys`, `cross_values` [N, B, H, P + S, K], `cross_mask` [B, 1, 1, P + S],
          `filled`, how many of the L are taken (int32). Each P is that attention's own, 0 without a prefix.
        """
        config, layers = self.config, self.decoder.filled()

        def layer(_: None, block: Any) -> tuple[None, tuple[Array, Array]]:
            return None, block.cross_attention.attention.keys_values(encoded_BSD)

        cross_keys, cross_values = prefixes.behind(layers, jax.lax.scan(layer, None, layers)[1], name="cross_attention")
        empty = jnp.zeros((config.num_decoder_layers, encoded_BSD.shape[0], config.num_heads, length, config.d_kv), encoded_BSD.dtype)
        self_keys, self_values = prefixes.behind(layers, (empty, empty))
        cross_mask = _mask(encoder_segment_ids_BS, encoder_segment_ids_BS, packed=False)
        return {
            "self_keys": self_keys,
            "self_values": self_values,
            "cross_keys": cross_keys,
            "cross_values": cross_values,
            "cross_mask": prefixes.seen(cross_mask, prefixes.length(layers, "cross_attention")),
            "filled": jnp.zeros((), jnp.int32),
        }

    def decode_step(self, tokens_BT: Array, cache: dict[str, Array], *, slots_BT: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Appends T >= 1 positions to the cache and gives their logits [B, T, V]; T > 1 fills in a decoder prompt at once."""
        stack, filled = self.decoder, cache["filled"]
        layers = stack.filled()
        prefix = prefixes.length(layers)
        positions = filled + jnp.arange(tokens_BT.shape[1])
        slots_L = jnp.arange(cache["self_keys"].shape[3] - prefix)
        mask = jnp.where(slots_L[None, :] <= positions[:, None], 0.0, MASKED)[None, None]

        def biased(own: Any) -> Bias:
            return Bias(None, prefixes.seen(mask if own is None else own(positions, slots_L) + mask, prefix))

        shared_bias = biased(stack.relative_bias)

        def layer(x_BTD: Array, scanned: Any) -> tuple[Array, tuple[Array, Array]]:
            block, keys, values, cross_keys, cross_values = scanned
            attend, cross = block.self_attention, block.cross_attention
            bias = shared_bias if attend.relative_bias is None else biased(attend.relative_bias)
            stored: list[Array] = []

            def extended(normed_BTD: Array, key: Array | None) -> list[Array]:
                for new, old in zip(attend.attention.keys_values(normed_BTD, key), (keys, values), strict=True):
                    stored.append(jax.lax.dynamic_update_slice_in_dim(old, new, prefix + filled, axis=2))
                return stored

            x_BTD = attend(x_BTD, extended, bias, key=None)
            x_BTD = cross(x_BTD, lambda *_: (cross_keys, cross_values), Bias(None, cache["cross_mask"]), key=None)
            return block.feed_forward(x_BTD, key=None), (stored[0], stored[1])

        x_BTD = self.embed(tokens_BT, slots_BT, self.config.dtype)
        scanned = (prefixes.left_out(layers), *(cache[name] for name in ("self_keys", "self_values", "cross_keys", "cross_values")))
        x_BTD, (keys, values) = jax.lax.scan(layer, x_BTD, scanned, unroll=self._unroll(stack))
        cache = cache | {"self_keys": keys, "self_values": values, "filled": filled + tokens_BT.shape[1]}
        return self.logits(stack.norm(x_BTD)), cache

    def logits(self, x_BTD: Array) -> Array:
        """The head: logits [B, T, V] in float32."""
        if self.head is not None:
            return self.head(x_BTD).astype(jnp.float32)
        x_BTD = x_BTD * jnp.asarray(self.config.d_model**-0.5, x_BTD.dtype)
        return self.embed.logits(x_BTD)

    def _keys(self, key: Array | None, stack: Stack) -> Array | None:
        return None if key is None else jax.random.split(key, stack.num_layers)

    def _unroll(self, stack: Stack) -> bool:
        return unrolled(self.config.unroll_layers, stack.num_layers)

    def _over_layers(self, layer: Callable[..., Any], x: Array, scanned: Any, stack: Stack) -> tuple[Array, None]:
        layer = kept(layer, self.config.remat)
        return jax.lax.scan(layer, x, scanned, unroll=self._unroll(stack))


def _mask(query_segments_BT: Array, key_segments_BS: Array, *, packed: bool) -> Array:
    """0 where attention is allowed and `MASKED` elsewhere, float32: [B, 1, 1, S], or [B, 1, T, S] where rows are packed."""
    allowed = (key_segments_BS > 0)[:, None, None, :]
    if packed:
        allowed = allowed & (query_segments_BT[:, None, :, None] == key_segments_BS[:, None, None, :])
    return jnp.where(allowed, 0.0, MASKED)
