"""Whisper, a speech encoder-decoder, from the blocks that decoder-only models are made of (Radford et al. 2022, arXiv:2212.04356).

Axes: B batch, F mel frames, two a position, M mel bands, S source positions (audio and prompt), T target length, L cache length, D model
width, H heads, K head width, N layers, V vocabulary, W width of a convolution, P prefix length, I and O any input and output
width.

Two convolutions halve the log-mel spectrogram in time (section 2.2); sinusoids tell the encoder its positions, a learned table the decoder.
Layer norms stand before the sub-layers and have biases, as linear layers do but for the one that makes keys, where a bias would add the
same to all scores of a query. The head is the embedding. There is no padding in the encoder: a window of 30 s is listened to whole.

Sockets are those of `decoder_layers.py` under T5's names (`encoder/layers/self_attention`, `decoder/layers/cross_attention`, ...), so that
methods attach as to a T5. The rows of a prompt in the encoder stand among the positions of the audio, without a position of their own; in
the decoder they have positions, and count, as tokens do. Key/value prefixes do not count.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.models import prefixes
from prompt_tuning.models.decoder_blocks import AttentionBlock, MlpBlock
from prompt_tuning.models.decoder_layers import DecoderConfig, Norm, position_table
from prompt_tuning.models.layers import MASKED, Array, Embed, Remat, Socket, at_slots, dropout, kept, param, split_key, unrolled

Batch = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class WhisperConfig:
    """The architecture of a Whisper; the defaults are the multilingual "tiny".

    Attributes:
      vocab_size, d_model, num_heads: V, D, H; a head is D / H wide.
      d_ff: inner width of the feed-forward layers.
      num_encoder_layers, num_decoder_layers: N of each stack.
      mels: M.
      source_positions: of a window of audio, S without a prompt: half of its frames.
      target_positions: rows of the decoder's table, prompt and start tokens included.
      dropout_rate, dtype, param_dtype, unroll_layers, remat: as in `T5Config`.
    """

    vocab_size: int = 51865
    d_model: int = 384
    d_ff: int = 1536
    num_heads: int = 6
    num_encoder_layers: int = 4
    num_decoder_layers: int = 4
    mels: int = 80
    source_positions: int = 1500
    target_positions: int = 448
    dropout_rate: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    unroll_layers: bool | None = None
    remat: Remat | None = None

    def __post_init__(self) -> None:
        if self.d_model % self.num_heads or self.d_model % 2:
            raise UserError(f"WhisperConfig.d_model: wanted an even multiple of num_heads ({self.num_heads}), got {self.d_model}")

    @property
    def blocks(self) -> DecoderConfig:
        """The same as the blocks take it."""
        return DecoderConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            d_ff=self.d_ff,
            num_layers=self.num_decoder_layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_heads,
            head_width=self.d_model // self.num_heads,
            norm="layer",
            activation="gelu_erf",
            gated=False,
            qkv_bias=True,
            out_bias=True,
            mlp_bias=True,
            positions="learned",
            max_positions=self.target_positions,
            tied=True,
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )


def _size(d_model: int, num_heads: int, layers: int, **other: Any) -> dict[str, Any]:
    return {
        "d_model": d_model,
        "d_ff": 4 * d_model,
        "num_heads": num_heads,
        "num_encoder_layers": layers,
        "num_decoder_layers": layers,
    } | other


_ENGLISH = {"vocab_size": 51864}
_V3 = {"vocab_size": 51866, "mels": 128}

# Table 1 of the paper; "large_v3" and its "turbo" of four decoder layers are later releases of the same authors.
SIZES: dict[str, dict[str, Any]] = {
    "whisper_tiny": _size(384, 6, 4),
    "whisper_base": _size(512, 8, 6),
    "whisper_small": _size(768, 12, 12),
    "whisper_medium": _size(1024, 16, 24),
    "whisper_large": _size(1280, 20, 32),
    "whisper_tiny_en": _size(384, 6, 4, **_ENGLISH),
    "whisper_base_en": _size(512, 8, 6, **_ENGLISH),
    "whisper_small_en": _size(768, 12, 12, **_ENGLISH),
    "whisper_medium_en": _size(1024, 16, 24, **_ENGLISH),
    "whisper_large_v3": _size(1280, 20, 32, **_V3),
    "whisper_large_v3_turbo": _size(1280, 20, 32, **_V3) | {"num_decoder_layers": 4},
}


def named(name: str, **changes: Any) -> WhisperConfig:
    """The architecture of a published size, with fields of `WhisperConfig` changed by keyword. Raises UserError for an unknown name."""
    if name not in SIZES:
        near = difflib.get_close_matches(name, SIZES, 3)
        raise UserError(f"model size {name!r} is not known; wanted one of {near or sorted(SIZES)}; set whisper.named.name")
    return WhisperConfig(**(SIZES[name] | changes))


def sinusoids(length: int, width: int) -> np.ndarray:
    """The encoder's positions, float32 [length, width]: sines, then cosines, of periods from 2 pi to 2 pi 10,000 positions."""
    rates = np.exp(-math.log(10000.0) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(length)[:, None] * rates[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


class Convolution(nnx.Module):
    """A convolution over time, three frames wide, with a bias and a GELU."""

    def __init__(self, rngs: nnx.Rngs, width_in: int, width_out: int, *, stride: int, dtype: str):
        self.kernel = param(rngs, (3, width_in, width_out), std=(3 * width_in) ** -0.5, axes=("window", "mels", "embed"), dtype=dtype)
        self.bias = nnx.Param(jnp.zeros((width_out,), dtype), axes=("embed",))
        self.stride = stride

    def __call__(self, x_BFI: Array) -> Array:
        """[B, F / stride, O]."""
        kernel_WIO = self.kernel[...].astype(x_BFI.dtype)
        y_BFO = jax.lax.conv_general_dilated(x_BFI, kernel_WIO, (self.stride,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC"))
        return jax.nn.gelu(y_BFO + jnp.broadcast_to(self.bias[...].astype(y_BFO.dtype), y_BFO.shape), approximate=False)


class Stem(nnx.Module):
    """What makes positions [B, S, D] of a spectrogram [B, F, M]."""

    def __init__(self, rngs: nnx.Rngs, config: WhisperConfig):
        self.conv1 = Convolution(rngs, config.mels, config.d_model, stride=1, dtype=config.param_dtype)
        self.conv2 = Convolution(rngs, config.d_model, config.d_model, stride=2, dtype=config.param_dtype)

    def __call__(self, features_BFM: Array) -> Array:
        """The positions of the audio, with their sinusoids."""
        x_BSD = self.conv2(self.conv1(features_BFM))
        return x_BSD + jnp.asarray(sinusoids(*x_BSD.shape[1:]), x_BSD.dtype)[None]


def _attention(rngs: nnx.Rngs, config: DecoderConfig) -> AttentionBlock:
    block = AttentionBlock(rngs, config)
    attention: Any = block.attention
    attention.key.bias = nnx.data(None)
    return block


class EncoderLayer(nnx.Module):
    """Self-attention and feed-forward."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig):
        self.self_attention = _attention(rngs, config)
        self.feed_forward = MlpBlock(rngs, config, mixture=False)


class DecoderLayer(nnx.Module):
    """Causal self-attention, attention to the encoder's output, feed-forward."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig):
        self.self_attention = _attention(rngs, config)
        self.cross_attention = _attention(rngs, config)
        self.feed_forward = MlpBlock(rngs, config, mixture=False)


class Stack(nnx.Module):
    """N layers, their weights stacked on a leading axis, and the final norm. Socket: `generator`."""

    def __init__(self, rngs: nnx.Rngs, config: DecoderConfig, layer: Callable[[nnx.Rngs, DecoderConfig], nnx.Module], *, num_layers: int):
        self.layers = nnx.vmap(lambda r: layer(r, config), in_axes=0, out_axes=0)(rngs.split(num_layers))
        self.norm = Norm(config.d_model, config, kind="layer")
        self.num_layers = num_layers
        self.generator: Socket = nnx.data(None)

    def filled(self) -> Any:
        """The layers to run."""
        return self.layers if self.generator is None else self.generator(self.layers)


class Whisper(nnx.Module):
    """A speech encoder-decoder. Sockets are empty until a method fills them."""

    def __init__(self, config: WhisperConfig, rngs: nnx.Rngs):
        blocks = config.blocks
        self.config = config
        self.embed = Embed(rngs, vocab_size=config.vocab_size, width=config.d_model, dtype=config.param_dtype)
        # A head tied to embeddings as wide as T5's would start far from uniform.
        table = (config.vocab_size, config.d_model)
        self.embed.embedding = param(rngs, table, std=config.d_model**-0.5, axes=("vocab", "embed"), dtype=config.param_dtype)
        self.positions = position_table(rngs, blocks)
        self.stem = Stem(rngs, config)
        self.encoder = Stack(rngs, blocks, EncoderLayer, num_layers=config.num_encoder_layers)
        self.decoder = Stack(rngs, blocks, DecoderLayer, num_layers=config.num_decoder_layers)

    def __call__(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """Logits [B, T, V] in float32 of a batch as `data.audio.layout` makes it.

        Args:
          batch: `encoder_input_features` [B, F, M]; `decoder_input_tokens` [B, T], padded at the end; where there are prompts
            `encoder_prompt_slots` [B, S], `decoder_prompt_slots` [B, T].
          dropout_key: turns dropout on.
        """
        return self.logits(self.hidden(batch, dropout_key=dropout_key))

    def hidden(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """What the head reads of a batch, [B, T, D]."""
        encoder_key, decoder_key = split_key(dropout_key, 2)
        encoded_BSD = self.encode(batch["encoder_input_features"], slots_BS=batch.get("encoder_prompt_slots"), dropout_key=encoder_key)
        return self.decode(batch, encoded_BSD, dropout_key=decoder_key)

    def encode(
        self,
        features_BFM: Array,
        *,
        segment_ids_BS: Array | None = None,
        slots_BS: Array | None = None,
        dropout_key: Array | None = None,
    ) -> Array:
        """The encoder's output [B, S, D].

        Args:
          features_BFM: log-mel spectrograms of whole windows (`data.audio.log_mel`).
          segment_ids_BS: unused: nothing is padding. Generation gives it to every model.
          slots_BS: -1 where the next position of the audio stands, r >= 0 for row r of the prompt; S is that of the audio plus the prompt.
          dropout_key: turns dropout on.

        Raises UserError for spectrograms of another size.
        """
        del segment_ids_BS
        config, stack = self.config, self.encoder
        wanted = (2 * config.source_positions, config.mels)
        if features_BFM.shape[1:] != wanted:
            raise UserError(
                f"audio features: wanted {list(wanted)} (frames, mel bands) a row, got {list(features_BFM.shape[1:])}; "
                f"make them with data.audio.log_mel(samples, mels={config.mels})"
            )
        embed_key, final_key, layers_key = split_key(dropout_key, 3)
        x_BSD = self._with_prompt(self.stem(features_BFM.astype(config.dtype)), slots_BS)
        x_BSD = dropout(x_BSD, config.dropout_rate, embed_key)
        bias = jnp.zeros((1, 1, 1, x_BSD.shape[1]))

        def layer(x_BSD: Array, scanned: Any) -> tuple[Array, None]:
            block, key = scanned
            attention_key, mlp_key = split_key(key, 2)
            x_BSD = _attended(block.self_attention, x_BSD, bias, key=attention_key)
            return block.feed_forward(x_BSD, key=mlp_key), None

        x_BSD, _ = self._over_layers(layer, x_BSD, stack, layers_key)
        return dropout(stack.norm(x_BSD), config.dropout_rate, final_key)

    def decode(self, batch: Batch, encoded_BSD: Array, *, dropout_key: Array | None = None) -> Array:
        """What the head reads [B, T, D] of given decoder inputs, all positions at once; keys of `batch` as in `__call__`."""
        embed_key, final_key, layers_key = split_key(dropout_key, 3)
        tokens_BT = batch["decoder_input_tokens"]
        self._check_length(tokens_BT.shape[1])
        positions_T = jnp.arange(tokens_BT.shape[1])
        x_BTD = dropout(self._embedded(tokens_BT, batch.get("decoder_prompt_slots"), positions_T), self.config.dropout_rate, embed_key)
        # Padding stands after the targets: the causal mask alone keeps it out of every position that counts.
        causal = jnp.where(positions_T[:, None] >= positions_T[None, :], 0.0, MASKED)[None, None]
        cross_bias = jnp.zeros((1, 1, 1, encoded_BSD.shape[1]))

        def layer(x_BTD: Array, scanned: Any) -> tuple[Array, None]:
            block, key = scanned
            self_key, cross_key, mlp_key = split_key(key, 3)
            x_BTD = _attended(block.self_attention, x_BTD, causal, key=self_key)
            x_BTD = _attended(block.cross_attention, x_BTD, cross_bias, source=encoded_BSD, key=cross_key)
            return block.feed_forward(x_BTD, key=mlp_key), None

        x_BTD, _ = self._over_layers(layer, x_BTD, self.decoder, layers_key)
        return dropout(self.decoder.norm(x_BTD), self.config.dropout_rate, final_key)

    def init_cache(self, encoded_BSD: Array, segment_ids_BS: Array | None = None, *, length: int) -> dict[str, Array]:
        """A cache for `length` decoder positions, with the prefixes and the keys and values of the encoder's output computed once.

        Returns:
          `self_keys`, `self_values` [N, B, H, P + L, K], `cross_keys`, `cross_values` [N, B, H, P + S, K], `filled`, how many of the L are
          taken (int32). Each P is that attention's own, 0 without a prefix.

        Raises UserError where `length` is more than the model has positions.
        """
        del segment_ids_BS
        self._check_length(length)
        blocks, layers = self.config.blocks, self.decoder.filled()

        def layer(_: None, block: Any) -> tuple[None, tuple[Array, Array]]:
            return None, block.cross_attention.attention.keys_values(encoded_BSD, None)

        cross_keys, cross_values = prefixes.behind(layers, jax.lax.scan(layer, None, layers)[1], name="cross_attention")
        shape = (self.decoder.num_layers, encoded_BSD.shape[0], blocks.num_heads, length, blocks.head_width)
        empty = jnp.zeros(shape, encoded_BSD.dtype)
        self_keys, self_values = prefixes.behind(layers, (empty, empty))
        return {
            "self_keys": self_keys,
            "self_values": self_values,
            "cross_keys": cross_keys,
            "cross_values": cross_values,
            "filled": jnp.zeros((), jnp.int32),
        }

    def decode_step(self, tokens_BT: Array, cache: dict[str, Array], *, slots_BT: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Appends T >= 1 positions to the cache and gives their logits [B, T, V]; T > 1 fills in start tokens and a prompt at once."""
        stack, filled = self.decoder, cache["filled"]
        layers = stack.filled()
        prefix = prefixes.length(layers)
        positions_T = filled + jnp.arange(tokens_BT.shape[1])
        slots_L = jnp.arange(cache["self_keys"].shape[3] - prefix)
        bias = prefixes.seen(jnp.where(slots_L[None, :] <= positions_T[:, None], 0.0, MASKED)[None, None], prefix)
        cross_bias = jnp.zeros((1, 1, 1, cache["cross_keys"].shape[3]))

        def layer(x_BTD: Array, scanned: Any) -> tuple[Array, tuple[Array, Array]]:
            block, keys, values, cross_keys, cross_values = scanned
            attend, cross = block.self_attention, block.cross_attention
            stored: list[Array] = []

            def extended(normed_BTD: Array, key: Array | None) -> tuple[Array, Array]:
                for new, old in zip(attend.attention.keys_values(normed_BTD, None, key), (keys, values), strict=True):
                    stored.append(jax.lax.dynamic_update_slice_in_dim(old, new, prefix + filled, axis=2))
                return stored[0], stored[1]

            x_BTD = attend(x_BTD, extended, bias, turned=None, key=None)
            x_BTD = cross(x_BTD, lambda *_: (cross_keys, cross_values), cross_bias, turned=None, key=None)
            return block.feed_forward(x_BTD, key=None), (stored[0], stored[1])

        x_BTD = self._embedded(tokens_BT, slots_BT, positions_T)
        scanned = (prefixes.left_out(layers), *(cache[name] for name in ("self_keys", "self_values", "cross_keys", "cross_values")))
        x_BTD, (keys, values) = jax.lax.scan(layer, x_BTD, scanned, unroll=unrolled(self.config.unroll_layers, stack.num_layers))
        grown = {"self_keys": keys, "self_values": values, "filled": filled + tokens_BT.shape[1]}
        return self.logits(stack.norm(x_BTD)), cache | grown

    def logits(self, x_BTD: Array) -> Array:
        """The head: logits [B, T, V] in float32."""
        return self.embed.logits(x_BTD)

    def _with_prompt(self, audio_BSD: Array, slots_BS: Array | None) -> Array:
        """The positions of the audio, in their order, among the rows of the prompt."""
        if slots_BS is None or self.embed.prompt is None:
            return audio_BSD
        heard_BS = jnp.maximum(jnp.cumsum(slots_BS < 0, axis=1) - 1, 0)
        spread_BSD = jnp.take_along_axis(audio_BSD, heard_BS[..., None], axis=1)
        return at_slots(self.embed.prompt(), spread_BSD, slots_BS)

    def _embedded(self, tokens_BT: Array, slots_BT: Array | None, positions_T: Array) -> Array:
        x_BTD = self.embed(tokens_BT, slots_BT, self.config.dtype)
        return x_BTD + self.positions[...][positions_T].astype(x_BTD.dtype)[None]

    def _check_length(self, length: int) -> None:
        if length > self.config.target_positions:
            raise UserError(
                f"{length} target positions, prompt included, are more than the model's {self.config.target_positions}: shorten them"
            )

    def _over_layers(self, layer: Callable[..., Any], x: Array, stack: Stack, key: Array | None) -> tuple[Array, None]:
        layer = kept(layer, self.config.remat)
        keys = None if key is None else jax.random.split(key, stack.num_layers)
        return jax.lax.scan(layer, x, (stack.filled(), keys), unroll=unrolled(self.config.unroll_layers, stack.num_layers))


def _attended(block: AttentionBlock, x: Array, bias: Array, *, source: Array | None = None, key: Array | None) -> Array:
    """Adds to x what its positions see of themselves, or of `source`."""
    return block(
        x, lambda normed, key: block.attention.keys_values(normed if source is None else source, None, key), bias, turned=None, key=key
    )
