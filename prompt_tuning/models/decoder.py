"""Decoder-only language models: one model, whose differences are fields of `DecoderConfig` (decoder_layers.py).

Axes: B batch, T length of a call, L cache length, S keys length, D model width, H heads, G query heads a key head, K head width, N layers,
V vocabulary, P prompt length.

| family | norm | positions | attention | feed-forward |
|---|---|---|---|---|
| GPT-2 | layer norm with bias | learned | biases | GELU, biases |
| Llama 2, 3 (2307.09288, 2407.21783) | RMS | rotary; "llama3" scaling from 3.1 | grouped | SwiGLU |
| Mistral (2310.06825) | RMS | rotary | grouped, a window in every layer | SwiGLU |
| Qwen 2 (2407.10671), 3 (2505.09388) | RMS | rotary | grouped; biases of q, k, v; norms of q, k | SwiGLU |
| Gemma (2403.08295) | RMS, 1 + scale | rotary | grouped | gated GELU |
| Gemma 2 (2408.00118) | also after each block | rotary | every other layer a window; capped | gated GELU |
| DeepSeek-V2 (2405.04434), V3 (2412.19437) | RMS | rotary, "yarn" scaling | latent (`latent.py`) | mixture of experts |
| Gemma 3 (2503.19786) | also after each block | rotary, two bases | five of six layers a window; norms of q, k | gated GELU |

A row is one sequence. A batch may give it whole (keys `decoder_*`), or as inputs and targets, as an encoder-decoder takes them (keys
`encoder_*` and `decoder_*`, `data/features.py`): the targets then follow the inputs, and "encoder" means the inputs. So training, ranking
and generation are the same code for both kinds of model.

Positions are data: they restart in each segment of a packed row and count prompt slots, so that a packed example gets the logits it gets
alone. They are counted from the left, padding apart, where the batch does not state them. Key/value prefixes come before position 0, which
then is P.
"""

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.models import prefixes, rope
from prompt_tuning.models.decoder_blocks import DecoderStack
from prompt_tuning.models.decoder_layers import Angles, DecoderConfig, capped, position_table
from prompt_tuning.models.layers import MASKED, Array, Embed, Linear, dropout, entering, kept, param, split_key, unrolled

__all__ = ["Decoder", "DecoderConfig"]

Batch = Mapping[str, Array]


class Decoder(nnx.Module):
    """A decoder-only language model. Sockets are empty until a method fills them."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        self.config = config
        self.embed = Embed(rngs, vocab_size=config.vocab_size, width=config.d_model, dtype=config.param_dtype)
        # A head tied to embeddings as wide as T5's would start far from uniform.
        table = (config.vocab_size, config.d_model)
        self.embed.embedding = param(rngs, table, std=config.d_model**-0.5, axes=("vocab", "embed"), dtype=config.param_dtype)
        self.positions = position_table(rngs, config)
        first = config.dense_layers if config.experts else 0
        self.first = DecoderStack(config, rngs, num_layers=first, mixture=False, last=False) if first else nnx.data(None)
        self.decoder = DecoderStack(config, rngs, num_layers=config.num_layers - first, mixture=config.experts > 0, last=True)
        self.head = (
            nnx.data(None)
            if config.tied
            else Linear(
                rngs, (config.d_model, config.vocab_size), std=config.d_model**-0.5, axes=("embed", "vocab"), dtype=config.param_dtype
            )
        )

    def __call__(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """Logits [B, T, V] in float32, of the targets' part where inputs are given apart.

        Args:
          batch: `decoder_input_tokens`, `decoder_segment_ids` [B, T], 0 where there is padding, which may stand on either side;
            `decoder_prompt_slots` where there is a prompt; `decoder_positions` where rows are packed; `decoder_bidirectional` (1 on the
            positions that see each other in both directions) where the mask is "prefix". Or inputs and targets as `T5` takes them; the
            inputs see each other in both directions where the mask is "prefix". Answer choices are `decoder_` arrays [B, C, T], each of
            which follows its example's inputs and sees no other; the logits are [B, C, T, V].
          dropout_key: turns dropout on.
        """
        return self.logits(self.hidden(batch, dropout_key=dropout_key)).reshape(*batch["decoder_input_tokens"].shape, -1)

    def hidden(self, batch: Batch, *, dropout_key: Array | None = None) -> Array:
        """What the head reads of a batch, [B, T, D]; of answer choices, one behind the other, [B, C * T, D]."""
        inputs = batch["encoder_input_tokens"].shape[1] if "encoder_input_tokens" in batch else 0
        return self._hidden(joined(batch) if inputs else batch, dropout_key, first=inputs)

    def _hidden(self, batch: Batch, dropout_key: Array | None, *, first: int) -> Array:
        """What the head reads [B, T - first, D], of the positions from `first` on.

        Of the positions before, the last layer needs keys and values only. Scanned layers compute all of it nevertheless: the last one
        would have to be copied out of their stack.
        """
        embed_key, final_key, layers_key = split_key(dropout_key, 3)
        segments_BT = batch["decoder_segment_ids"]
        positions_BT = batch.get("decoder_positions")
        same_BTS = segments_BT[:, None, :] > 0
        if positions_BT is None:
            positions_BT = _counted(segments_BT > 0)
        else:
            same_BTS = same_BTS & (segments_BT[:, :, None] == segments_BT[:, None, :])
        if "decoder_choices" in batch:
            choices_BT = batch["decoder_choices"]
            same_BTS = same_BTS & ((choices_BT[:, None, :] == 0) | (choices_BT[:, :, None] == choices_BT[:, None, :]))
        both_ways = self._both_ways(batch.get("decoder_bidirectional"))
        layers, prefix = self._filled()
        biases = self._biases(positions_BT, positions_BT, same_BTS, both_ways)
        positions_BT = positions_BT + prefix
        turned = self._turned(positions_BT)
        x_BTD = self._embedded(batch["decoder_input_tokens"], batch.get("decoder_prompt_slots"), positions_BT)
        self._check_length(positions_BT.shape[1] + prefix)
        x_BTD = dropout(x_BTD, self.config.dropout_rate, embed_key)

        def layer(x_BTD: Array, scanned: Any, first: int = 0) -> tuple[Array, None]:
            block, local, key = scanned
            attention_key, mlp_key = split_key(key, 2)
            bias, turn = _chosen(local, biases), _chosen(local, turned)
            attend = block.self_attention
            x_BTD = entering(block, x_BTD, batch.get("decoder_prompt_slots"))

            def keys_values(normed_BTD: Array, key: Array | None) -> Any:
                return attend.attention.keys_values(attend.norm(x_BTD) if first else normed_BTD, turn, key)

            asking = jax.tree.map(lambda angles: angles[:, :, first:], turn)
            y_BTD = attend(x_BTD[:, first:], keys_values, bias[:, :, first:], turned=asking, causal=both_ways is None, key=attention_key)
            return block.feed_forward(y_BTD, key=mlp_key), None

        keys = None if layers_key is None else jax.random.split(layers_key, self.config.num_layers)
        last_apart = first > 0 and self._unroll()
        for stack, own in layers:
            scanned = (stack, self._local()[own], None if keys is None else keys[own])
            apart = last_apart and own.stop == self.config.num_layers
            before = jax.tree.map(lambda each: each[:-1], scanned) if apart else scanned
            x_BTD, _ = jax.lax.scan(kept(layer, self.config.remat), x_BTD, before, unroll=self._unroll())
            if apart:
                last = jax.tree.map(lambda each: each[-1], scanned)
                x_BTD, _ = kept(functools.partial(layer, first=first), self.config.remat)(x_BTD, last)
        return dropout(self.decoder.norm(x_BTD if last_apart else x_BTD[:, first:]), self.config.dropout_rate, final_key)

    def encode(
        self, tokens_BS: Array, *, segment_ids_BS: Array, slots_BS: Array | None = None, cache: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """What the inputs leave for the targets to read: a cache of their S positions, to be given to `init_cache`.

        `cache`, of an `encode` before, holds what stands before the inputs already; with a "prefix" mask it would not see them.
        """
        length = tokens_BS.shape[1]
        if cache is None:
            cache = self.empty_cache(tokens_BS.shape[0], length=length)
        else:
            cache = self.init_cache(cache, segment_ids_BS, length=length)
        return self.decode_step(tokens_BS, cache, slots_BT=slots_BS, valid_BT=segment_ids_BS, bidirectional_BT=segment_ids_BS)[1]

    def init_cache(self, encoded: dict[str, Array], segment_ids_BS: Array, *, length: int) -> dict[str, Array]:
        """The cache of `encode` with room for `length` more positions a row; see `empty_cache`."""
        del segment_ids_BS  # Padding is known to the cache.
        room = ((0, 0), (0, 0), (0, 0), (0, length), (0, 0))
        return encoded | {
            "keys": jnp.pad(encoded["keys"], room),
            "values": jnp.pad(encoded["values"], room),
            "positions": jnp.pad(encoded["positions"], ((0, 0), (0, length)), constant_values=-1),
        }

    def empty_cache(self, batch_size: int, *, length: int) -> dict[str, Array]:
        """An empty cache for `length` positions a row.

        Returns:
          `keys`, `values` [N, B, H / G, P + L, K], the prefixes before all; `positions` [B, L], -1 where nothing stands; `lengths` [B],
          tokens and prompt slots so far; `filled`, how many of the L are taken in every row (int32).
        """
        config = self.config
        layers, prefix = self._filled()
        widths = config.key_width, config.value_width if config.latent_width else config.head_width
        parts = []
        for stack, own in layers:
            there = prefixes.length(stack)
            shape = (own.stop - own.start, batch_size, config.num_kv_heads, length + prefix - there)
            parts.append(
                prefixes.behind(stack, (jnp.zeros((*shape, widths[0]), config.dtype), jnp.zeros((*shape, widths[1]), config.dtype)))
            )
        keys, values = (_together(each) for each in zip(*parts, strict=True))
        return {
            "keys": keys,
            "values": values,
            "positions": jnp.full((batch_size, length), -1, jnp.int32),
            "lengths": jnp.zeros((batch_size,), jnp.int32),
            "filled": jnp.zeros((), jnp.int32),
        }

    def decode_step(
        self,
        tokens_BT: Array,
        cache: dict[str, Array],
        *,
        slots_BT: Array | None = None,
        valid_BT: Array | None = None,
        bidirectional_BT: Array | None = None,
    ) -> tuple[Array, dict[str, Array]]:
        """Appends T >= 1 positions to the cache and gives their logits [B, T, V].

        Args:
          tokens_BT: what is appended to each row; the whole input and its prompt at once, then one token a step.
          cache: of `init_cache`, or of the step before.
          slots_BT: as `decoder_prompt_slots`.
          valid_BT: 0 on padding, which no later position sees or counts; None where there is none.
          bidirectional_BT: as `decoder_bidirectional`, among the positions appended here.
        """
        config, filled = self.config, cache["filled"]
        valid_BT = jnp.ones(tokens_BT.shape, bool) if valid_BT is None else valid_BT > 0
        positions_BT = cache["lengths"][:, None] + _counted(valid_BT)
        stored_BL = jax.lax.dynamic_update_slice_in_dim(cache["positions"], jnp.where(valid_BT, positions_BT, -1), filled, axis=1)
        both_ways = self._both_ways(bidirectional_BT)
        if both_ways is not None:
            both_ways = jax.lax.dynamic_update_slice_in_dim(jnp.zeros_like(stored_BL), both_ways, filled, axis=1)
        layers, prefix = self._filled()
        biases = self._biases(positions_BT, stored_BL, (stored_BL >= 0)[:, None, :], both_ways)
        positions_BT = positions_BT + prefix
        turned = self._turned(positions_BT)
        self._check_length(stored_BL.shape[1] + prefix)

        def layer(biases: tuple[Any, Any], x_BTD: Array, scanned: Any) -> tuple[Array, tuple[Array, Array]]:
            block, local, *old = scanned
            turn = _chosen(local, turned)
            attend = block.self_attention
            stored: list[Array] = []

            def extended(normed_BTD: Array, key: Array | None) -> tuple[Array, Array]:
                for new, before in zip(attend.attention.keys_values(normed_BTD, turn, key), old, strict=True):
                    stored.append(jax.lax.dynamic_update_slice_in_dim(before, new, prefix + filled, axis=2))
                return stored[0], stored[1]

            x_BTD = entering(block, x_BTD, slots_BT)
            x_BTD = attend(x_BTD, extended, _chosen(local, biases), turned=turn, key=None)
            return block.feed_forward(x_BTD, key=None), (stored[0], stored[1])

        x_BTD = self._embedded(tokens_BT, slots_BT, positions_BT)
        made = []
        for stack, own in layers:
            there = prefixes.length(stack) > 0
            own_biases = jax.tree.map(lambda bias, there=there: prefixes.seen(bias, prefix, there=there), biases)
            scanned = (prefixes.left_out(stack), self._local()[own], cache["keys"][own], cache["values"][own])
            x_BTD, keys_values = jax.lax.scan(functools.partial(layer, own_biases), x_BTD, scanned, unroll=self._unroll())
            made.append(keys_values)
        keys, values = (_together(each) for each in zip(*made, strict=True))
        grown = {"lengths": cache["lengths"] + jnp.sum(valid_BT, axis=1, dtype=jnp.int32), "filled": filled + tokens_BT.shape[1]}
        assert keys.shape[0] == config.num_layers
        return self.logits(self.decoder.norm(x_BTD)), cache | {"keys": keys, "values": values, "positions": stored_BL} | grown

    def _embedded(self, tokens_BT: Array, slots_BT: Array | None, positions_BT: Array) -> Array:
        config = self.config
        x_BTD = self.embed(tokens_BT, slots_BT, config.dtype)
        if config.scaled_embedding:
            root = jnp.asarray(config.d_model**0.5, config.param_dtype).astype(x_BTD.dtype)
            scaled_BTD = x_BTD * root
            x_BTD = scaled_BTD if slots_BT is None else jnp.where((slots_BT >= 0)[..., None], x_BTD, scaled_BTD)
        if self.positions is not None:
            x_BTD = x_BTD + self.positions[...][positions_BT].astype(x_BTD.dtype)
        return x_BTD

    def _check_length(self, length: int) -> None:
        if self.positions is not None and length > self.config.max_positions:
            raise UserError(f"a row of {length} positions is longer than the model's {self.config.max_positions}: shorten INPUT_LENGTH")

    def _biases(self, queries_BT: Array, keys_BS: Array, allowed_BTS: Array, both_ways_BS: Array | None) -> tuple[Array, Array | None]:
        """0 or `MASKED`, float32 [B, 1, T, S], for layers without and with a window (None where no layer has one), from positions."""
        distance_BTS = queries_BT[:, :, None] - keys_BS[:, None, :]
        seen_BTS = distance_BTS >= 0
        if both_ways_BS is not None:
            seen_BTS = seen_BTS | (both_ways_BS > 0)[:, None, :]
        seen_BTS = seen_BTS & allowed_BTS
        everywhere = jnp.where(seen_BTS, 0.0, MASKED)[:, None]
        if not any(self.config.local_layers):
            return everywhere, None
        return everywhere, jnp.where(seen_BTS & (jnp.abs(distance_BTS) < self.config.window), 0.0, MASKED)[:, None]

    def _turned(self, positions_BT: Array) -> tuple[Angles, Angles]:
        """The rotary angles in layers without and with a window."""
        config = self.config
        if config.positions != "rope":
            return None, None
        with_window = rope.angles(positions_BT, config.turns(local=True)) if any(config.local_layers) else None
        return rope.angles(positions_BT, config.turns(local=False)), with_window

    def _both_ways(self, bidirectional_BT: Array | None) -> Array | None:
        return bidirectional_BT if self.config.mask == "prefix" else None

    def _filled(self) -> tuple[list[tuple[Any, slice]], int]:
        """The layers to run, those of a stack with their places in the depth, and how many key/value positions stand before position 0."""
        stacks = [stack for stack in (self.first, self.decoder) if stack is not None]
        ends = list(itertools.accumulate(stack.num_layers for stack in stacks))
        layers = [(stack.filled(), slice(end - stack.num_layers, end)) for stack, end in zip(stacks, ends, strict=True)]
        return layers, max(prefixes.length(stack) for stack, _ in layers)

    def _local(self) -> Array:
        return jnp.asarray(self.config.local_layers)

    def logits(self, x_BTD: Array) -> Array:
        """The head: logits [B, T, V] in float32."""
        if self.head is not None:
            return capped(self.head(x_BTD).astype(jnp.float32), self.config.logit_cap)
        return capped(self.embed.logits(x_BTD), self.config.logit_cap)

    def _unroll(self) -> bool:
        return unrolled(self.config.unroll_layers, self.config.num_layers)


def joined(batch: Batch) -> dict[str, Array]:
    """Inputs and targets of an encoder-decoder's batch as one sequence [B, S + T]; a segment's positions go on from inputs to targets.

    Of C answer choices [B, C, T] all follow the inputs, [B, S + C * T], each with the positions it would have alone; `decoder_choices` says
    which one a position belongs to, 0 for the inputs.
    """
    if batch["decoder_input_tokens"].ndim == 3:
        return _joined_choices(batch)
    sides = ("encoder", "decoder")
    segments_BS, segments_BT = (batch[f"{side}_segment_ids"] for side in sides)
    whole = {
        "decoder_input_tokens": jnp.concatenate([batch[f"{side}_input_tokens"] for side in sides], axis=1),
        "decoder_segment_ids": jnp.concatenate([segments_BS, segments_BT], axis=1),
        "decoder_bidirectional": jnp.concatenate([(segments_BS > 0).astype(jnp.int32), jnp.zeros_like(segments_BT)], axis=1),
    }
    if any(f"{side}_prompt_slots" in batch for side in sides):
        slots = [batch.get(f"{side}_prompt_slots", jnp.full_like(batch[f"{side}_segment_ids"], -1)) for side in sides]
        whole["decoder_prompt_slots"] = jnp.concatenate(slots, axis=1)
    if "decoder_positions" in batch:
        before_BT = jnp.sum(segments_BT[:, :, None] == segments_BS[:, None, :], axis=2, dtype=jnp.int32)
        whole["decoder_positions"] = jnp.concatenate([batch["encoder_positions"], batch["decoder_positions"] + before_BT], axis=1)
    return whole


def _joined_choices(batch: Batch) -> dict[str, Array]:
    segments_BCT = batch["decoder_segment_ids"]
    rows, choices, length = segments_BCT.shape
    known_BS = batch["encoder_segment_ids"] > 0
    after_BCT = jnp.sum(known_BS, axis=1)[:, None, None] + jax.vmap(_counted, in_axes=1, out_axes=1)(segments_BCT > 0)
    number_BCT = jnp.broadcast_to(jnp.arange(1, choices + 1)[None, :, None], segments_BCT.shape)
    flat = {name: value.reshape(rows, -1) if name.startswith("decoder_") else value for name, value in batch.items()}
    whole = joined(flat)
    whole["decoder_positions"] = jnp.concatenate([_counted(known_BS), after_BCT.reshape(rows, choices * length)], axis=1)
    whole["decoder_choices"] = jnp.concatenate([jnp.zeros_like(batch["encoder_segment_ids"]), number_BCT.reshape(rows, -1)], axis=1)
    return whole


def _together(parts: tuple[Array, ...]) -> Array:
    return jnp.concatenate(parts) if len(parts) > 1 else parts[0]


def _counted(valid_BT: Array) -> Array:
    """Positions from the left, padding apart; 0 on padding before the first."""
    return jnp.maximum(jnp.cumsum(valid_BT, axis=1, dtype=jnp.int32) - 1, 0)


def _chosen(local: Array, both: tuple[Any, Any]) -> Any:
    """What a layer without, or with, a window takes; no choice where there is one only."""
    everywhere, within = both
    return everywhere if within is None else jax.tree.map(lambda a, b: jnp.where(local, b, a), everywhere, within)
