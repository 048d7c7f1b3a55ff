"""Beam search: the K likeliest beginnings of each row are carried on, and the K best texts that ended are kept.

Follows transformers' search, so that the same weights give the same tokens. A text's score is the sum of its tokens' log-probabilities, end
token included, over (number of tokens) ** length_penalty. (Wu et al. 2016, arXiv:1609.08144, section 7, which T5's own code follows,
divide by ((5 + tokens) / 6) ** length_penalty.) In each step the best (1 + number of end tokens) * K continuations, at least 2 K, are
looked at: those of the first K that end are candidates for the K kept; the best K that do not end are carried on. What still runs
when the last token is written counts as ended.

A row is settled once K texts are kept and, by `early_stopping`,

- True: nothing more;
- False: no running text, its score taken at its present length, beats the worst kept. With a positive length penalty a longer text
  might still have won;
- "never": no running text could ever beat the worst kept, at whatever length up to the longest.

A settled row takes no more texts while others run on, so that it does not depend on the rest of the batch.

Axes: B rows, K beams, C continuations looked at, T tokens written at most, V vocabulary.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning.caches import Cache, take_rows

Array = jax.Array
EarlyStopping = bool | Literal["never"]

# Beams of a row change places among themselves only: what the encoder gave, and where the cache is filled, is the same for all of them.
_SAME_IN_BEAMS = ("cross_keys", "cross_values", "cross_mask", "positions", "lengths", "task_ids")


class _Beams(NamedTuple):
    """Running texts with their summed log-probabilities, best first; ended ones with their scores, best first, -inf where none is yet."""

    step: Array
    tokens_BKT: Array
    sums_BK: Array
    parents_BK: Array
    ended_BKT: Array
    scores_BK: Array
    open_B: Array


def search(
    step: Callable[[Array, Cache], tuple[Array, Cache]],
    logits_BV: Array,
    cache: Cache,
    *,
    max_tokens: int,
    num_beams: int,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    eos_ids: tuple[int, ...] = (),
    pad_id: int = 0,
) -> tuple[Array, Array]:
    """The texts kept for each row, best first: tokens [B, K, max_tokens] (int32), `pad_id` after an end token, and scores [B, K].

    A score of -inf marks a place for which there is no text: fewer than K exist.

    Args:
      step: appends a token to each row of a cache, `(tokens_R1, cache) -> (logits_R1V, cache)`.
      logits_BV: of the first token.
      cache: of B rows, with room for `max_tokens - 1` more positions.
      max_tokens: the most tokens of a text, end token included; at least 1.
      num_beams: K.
      length_penalty: above 0 favours longer texts, below 0 shorter ones.
      early_stopping: see above.
      eos_ids: end tokens, all different; none: every text has `max_tokens` tokens.
      pad_id: what stands after the end.
    """
    rows, vocab_size = logits_BV.shape
    looked_at = min(max(2, 1 + len(eos_ids)) * num_beams, num_beams * vocab_size)
    # In float64 first: a power of float32 may round otherwise than transformers' division by a Python number.
    divisors_T = jnp.asarray(np.arange(1, max_tokens + 1, dtype=np.float64) ** length_penalty, jnp.float32)
    bound_by_longest = early_stopping == "never" and length_penalty > 0

    def extend(beams: _Beams, logits_BKV: Array) -> _Beams:
        sums_BKV = beams.sums_BK[..., None] + jax.nn.log_softmax(logits_BKV, axis=-1)
        sums_BC, found_BC = jax.lax.top_k(sums_BKV.reshape(rows, -1), looked_at)
        parents_BC, last_BC = found_BC // vocab_size, (found_BC % vocab_size).astype(jnp.int32)
        tokens_BCT = _taken(beams.tokens_BKT, parents_BC).at[:, :, beams.step].set(last_BC)
        ends_BC = among(last_BC, eos_ids) | (beams.step + 1 == max_tokens)

        first_BC = jnp.broadcast_to(jnp.arange(looked_at) < num_beams, ends_BC.shape)
        accepted_BC = jnp.where(ends_BC & first_BC & beams.open_B[:, None], sums_BC / divisors_T[beams.step], -jnp.inf)
        scores_BK, kept_BK = jax.lax.top_k(jnp.concatenate([beams.scores_BK, accepted_BC], axis=1), num_beams)
        ended_BKT = _taken(jnp.concatenate([beams.ended_BKT, tokens_BCT], axis=1), kept_BK)

        sums_BK, carried_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, sums_BC), num_beams)
        worst_B = scores_BK[:, -1]
        if early_stopping is True:
            open_B = worst_B == -jnp.inf
        else:
            divisor = divisors_T[-1 if bound_by_longest else beams.step]
            open_B = beams.open_B & ((worst_B == -jnp.inf) | (sums_BK[:, 0] / divisor > worst_B))
        parents_BK = jnp.take_along_axis(parents_BC, carried_BK, axis=1)
        return _Beams(beams.step + 1, _taken(tokens_BCT, carried_BK), sums_BK, parents_BK, ended_BKT, scores_BK, open_B)

    def unfinished(state: tuple[_Beams, Cache]) -> Array:
        beams, _ = state
        return (beams.step < max_tokens) & jnp.any(beams.open_B)

    def advance(state: tuple[_Beams, Cache]) -> tuple[_Beams, Cache]:
        beams, cache = state
        rows_BK = beams.parents_BK + num_beams * jnp.arange(rows)[:, None]
        cache = take_rows(cache, rows_BK.reshape(-1), same=_SAME_IN_BEAMS)
        last_BK = jax.lax.dynamic_index_in_dim(beams.tokens_BKT, beams.step - 1, axis=2, keepdims=False)
        logits_R1V, cache = step(last_BK.reshape(-1, 1), cache)
        return extend(beams, logits_R1V.reshape(rows, num_beams, vocab_size)), cache

    none_yet_BK = jnp.full((rows, num_beams), -jnp.inf)
    empty_BKT = jnp.full((rows, num_beams, max_tokens), pad_id, jnp.int32)
    beams = _Beams(
        step=jnp.int32(0),
        tokens_BKT=empty_BKT,
        sums_BK=none_yet_BK.at[:, 0].set(0.0),  # One beginning, not K of the same.
        parents_BK=jnp.zeros((rows, num_beams), jnp.int32),
        ended_BKT=empty_BKT,
        scores_BK=none_yet_BK,
        open_B=jnp.ones((rows,), bool),
    )
    beams = extend(beams, jnp.broadcast_to(logits_BV[:, None], (rows, num_beams, vocab_size)))
    cache = take_rows(cache, jnp.repeat(jnp.arange(rows), num_beams))
    beams, _ = jax.lax.while_loop(unfinished, advance, (beams, cache))
    return beams.ended_BKT, beams.scores_BK


def among(tokens: Array, ids: tuple[int, ...]) -> Array:
    """Which tokens are one of `ids`."""
    found = jnp.zeros(tokens.shape, bool)
    for each in ids:
        found = found | (tokens == each)
    return found


def _taken(texts_BKT: Array, which_BC: Array) -> Array:
    return jnp.take_along_axis(texts_BKT, which_BC[..., None], axis=1)
