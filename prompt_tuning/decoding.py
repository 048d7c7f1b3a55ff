"""Generation with a key/value cache: greedy, or sampled at a temperature.

The encoder runs once (a decoder-only model reads the inputs into its cache); the decoder's start (the start token and any decoder prompt)
is written into the cache in one step, then one token a step in a `jax.lax.while_loop` that stops when every row has ended. A row's tokens
depend on that row alone, never on the rest of the batch.

Axes: B batch, S source length, T target length, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.data.features import EOS_ID, PAD_ID, START_ID
from prompt_tuning.models.decoder import Decoder
from prompt_tuning.models.t5 import T5


def generate(
    model: T5 | Decoder,
    batch: Mapping[str, jax.Array | np.ndarray],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    keys_B: jax.Array | None = None,
    eos_id: int = EOS_ID,
) -> jax.Array:
    """Tokens [B, max_tokens] (int32): what the decoder writes for each row, its end token included, and 0 after that.

    Args:
      model: the model, with whatever a method plugged into it.
      batch: `encoder_input_tokens` and `encoder_segment_ids` [B, S] and, where there is an encoder prompt, `encoder_prompt_slots` [B, S];
        `decoder_start_tokens` [B, T] and `decoder_start_slots` [B, T] say what stands in the decoder before the first generated token
        (`data.features.decoder_start`). Without them the decoder starts from the padding token alone, as T5 does.
      max_tokens: the most tokens a row may have, the end token included; at least 1. Static under jit.
      temperature: 0 takes the likeliest token (the smallest id of equals), above 0 draws from softmax(logits / temperature). Static
        under jit.
      keys_B: a random key a row, wanted when the temperature is above 0; a row's draws depend on its own key only.
      eos_id: the end token.
    """
    assert max_tokens >= 1, max_tokens
    rows = batch["encoder_input_tokens"].shape[0]
    start_BT = jnp.asarray(batch.get("decoder_start_tokens", np.full((rows, 1), START_ID, np.int32)))
    encoded: Any = model.encode(
        jnp.asarray(batch["encoder_input_tokens"]),
        slots_BS=_optional(batch, "encoder_prompt_slots"),
        segment_ids_BS=jnp.asarray(batch["encoder_segment_ids"]),
    )
    # The last generated token is never read again, so the cache needs no place for it.
    cache = model.init_cache(encoded, jnp.asarray(batch["encoder_segment_ids"]), length=start_BT.shape[1] + max_tokens - 1)
    logits_BTV, cache = model.decode_step(start_BT, cache, slots_BT=_optional(batch, "decoder_start_slots"))

    def choose(logits_BV: jax.Array, step: jax.Array) -> jax.Array:
        if temperature == 0.0:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        assert keys_B is not None, "sampling wants a key for each row"
        step_keys_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, step)
        return jax.vmap(jax.random.categorical)(step_keys_B, logits_BV / temperature).astype(jnp.int32)

    def unfinished(state: tuple) -> jax.Array:
        step, _, _, ended_B, _ = state
        return (step < max_tokens) & ~jnp.all(ended_B)

    def advance(state: tuple) -> tuple:
        step, tokens_BT, last_B, ended_B, cache = state
        logits_BTV, cache = model.decode_step(last_B[:, None], cache)
        last_B = jnp.where(ended_B, PAD_ID, choose(logits_BTV[:, -1], step))
        tokens_BT = jax.lax.dynamic_update_slice_in_dim(tokens_BT, last_B[:, None], step, axis=1)
        return step + 1, tokens_BT, last_B, ended_B | (last_B == eos_id), cache

    first_B = choose(logits_BTV[:, -1], jnp.int32(0))
    tokens_BT = jnp.full((rows, max_tokens), PAD_ID, jnp.int32).at[:, 0].set(first_B)
    state = (jnp.int32(1), tokens_BT, first_B, first_B == eos_id, cache)
    return jax.lax.while_loop(unfinished, advance, state)[1]


def take_rows(cache: dict[str, jax.Array], rows_R: jax.Array) -> dict[str, jax.Array]:
    """A cache whose row r is row `rows_R[r]` of the given one: several continuations of one input share what the encoder gave."""
    batch_axis = {"filled": None, "cross_mask": 0, "positions": 0, "lengths": 0}
    taken = {}
    for name, value in cache.items():
        axis = batch_axis.get(name, 1)
        taken[name] = value if axis is None else jnp.take(value, rows_R, axis=axis)
    return taken


def without_end(tokens: Sequence[int] | np.ndarray, *, eos_id: int = EOS_ID) -> list[int]:
    """The ids of one generated row up to, and without, its end token; padding at the end is cut off too."""
    ids = [int(token) for token in tokens]
    if eos_id in ids:
        return ids[: ids.index(eos_id)]
    while ids and ids[-1] == PAD_ID:
        ids.pop()
    return ids


def _optional(batch: Mapping[str, jax.Array | np.ndarray], name: str) -> jax.Array | None:
    value = batch.get(name)
    return None if value is None else jnp.asarray(value)
