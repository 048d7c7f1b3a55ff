"""Generation with a key/value cache: greedy, sampled (`sampling.py`), or by beam search (`beam.py`).

The encoder runs once (a decoder-only model reads the inputs into its cache); the decoder's start (the start token and any decoder prompt)
is written into the cache in one step, then one token a step in a `jax.lax.while_loop` that stops when every row has ended. A row's tokens
depend on that row alone, never on the rest of the batch.

Axes: B batch, S source length, T target length, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning import beam, fields, sampling
from prompt_tuning.caches import Cache, take_rows
from prompt_tuning.data.features import EOS_ID, PAD_ID, START_ID, TOKEN_SLOT
from prompt_tuning.errors import UserError
from prompt_tuning.models.decoder import Decoder
from prompt_tuning.models.t5 import T5

__all__ = ["GREEDY", "Decoding", "Model", "begin", "cut", "encode", "generate", "search", "settled", "take_rows", "without_end"]

Array = jax.Array
Batch = Mapping[str, jax.Array | np.ndarray]
Step = Callable[[Array, Cache], tuple[Array, Cache]]

# What is read, and by the name of its argument what stands beside it. A model that hears reads features in place of tokens.
_TOKENS, _FEATURES = "encoder_input_tokens", "encoder_input_features"
_BESIDE = {"segment_ids_BS": "encoder_segment_ids", "slots_BS": "encoder_prompt_slots"}


class Model(Protocol):
    """What generation asks of a model; `T5` and `Decoder` say what the arguments are."""

    def encode(self, tokens_BS: Array, /, *, segment_ids_BS: Array, slots_BS: Array | None = None) -> Any:
        """Reads the inputs."""

    def init_cache(self, encoded: Any, segment_ids_BS: Array, /, *, length: int) -> Cache:
        """A cache behind what was read, with room for `length` positions."""

    def decode_step(self, tokens_BT: Array, cache: Cache, *, slots_BT: Array | None = None) -> tuple[Array, Cache]:
        """Appends tokens, and gives logits [B, T, V] in float32 and the cache."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How tokens are chosen and where a text ends; set from gin, static under jit.

    Attributes:
      temperature: 0 takes the likeliest token (the smallest id of equals), above 0 draws from softmax(logits / temperature).
      top_k: draws among the k likeliest tokens; None: all. See `sampling.py`.
      top_p: draws among the fewest tokens that have this probability together; 1: all.
      num_beams: above 1, beam search. See `beam.py`, also for the next two.
      length_penalty: a text's score is its log-probability over (number of tokens) ** length_penalty.
      early_stopping: True, False or "never": when beams may no longer improve.
      eos_ids: the tokens that end a text; None: the vocabulary's EOS; empty: every text has as many tokens as it may.
      stop_strings: a text is cut before the first of these. They are looked for when it has been written: they save no time, and a beam
        is scored with what stands behind them.
      pad_id: stands after the end of a text; None: the vocabulary's padding.
      start_id: the decoder's first token (T5: 0). None: a decoder-only model goes on from the last token of its inputs, as it does
        whatever stands here where its vocabulary has no start token.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    eos_ids: tuple[int, ...] | None = None
    stop_strings: tuple[str, ...] = ()
    pad_id: int | None = None
    start_id: int | None = START_ID

    def __post_init__(self) -> None:
        one = self.stop_strings
        object.__setattr__(self, "stop_strings", (one,) if isinstance(one, str) else tuple(one))
        ends = None if self.eos_ids is None else tuple(self.eos_ids)  # gin gives lists.
        object.__setattr__(self, "eos_ids", ends)
        self._check("temperature", _is_number(self.temperature) and self.temperature >= 0, "0 (greedy) or more")
        self._check("top_p", _is_number(self.top_p) and 0 < self.top_p <= 1, "more than 0 and at most 1")
        self._check("length_penalty", _is_number(self.length_penalty), "a finite number")
        self._check("early_stopping", self.early_stopping in (True, False, "never"), "True, False or 'never'")
        fields.check_count("Decoding.num_beams", self.num_beams)
        if self.top_k is not None:
            fields.check_count("Decoding.top_k", self.top_k)
        self._check("eos_ids", all(map(_is_id, ends or ())), "token ids of 0 or more")
        self._check("eos_ids", len(set(ends or ())) == len(ends or ()), "each token once")
        self._check("stop_strings", all(isinstance(each, str) and each for each in self.stop_strings), "texts that are not empty")
        self._check("pad_id", self.pad_id is None or _is_id(self.pad_id), "a token id of 0 or more, or None")
        self._check("start_id", self.start_id is None or _is_id(self.start_id), "a token id of 0 or more, or None")
        if self.temperature == 0 and (self.top_k is not None or self.top_p < 1):
            raise UserError(
                "Decoding: top_k and top_p choose what is drawn from, and temperature 0 draws nothing; set a temperature, as 1.0"
            )
        if self.temperature > 0 and self.num_beams > 1:
            raise UserError(
                f"Decoding: beam search draws nothing; set temperature = 0 (got {self.temperature}) or num_beams = 1 (got {self.num_beams})"
            )
        if self.num_beams == 1 and (self.length_penalty != 1 or self.early_stopping is not False):
            raise UserError("Decoding: length_penalty and early_stopping are beam search's; set num_beams to 2 or more")

    def ends(self, *, eos: int = EOS_ID, pad: int = PAD_ID) -> tuple[tuple[int, ...], int]:
        """`(eos_ids, pad_id)`: a vocabulary's own (T5's, if none are given) where the settings name none."""
        return (eos,) if self.eos_ids is None else self.eos_ids, pad if self.pad_id is None else self.pad_id

    def _check(self, name: str, good: bool, wanted: str) -> None:
        if not good:
            raise UserError(f"Decoding.{name}: wanted {wanted}, got {getattr(self, name)!r}")


GREEDY = Decoding()


def generate(
    model: T5 | Decoder | Model,
    batch: Batch,
    *,
    max_tokens: int,
    settings: Decoding = GREEDY,
    keys_B: Array | None = None,
    shared: int = 0,
) -> Array:
    """Tokens [B, max_tokens] (int32): what the decoder writes for each row, its end token included, and `pad_id` after that.

    Args:
      model: the model, with whatever a method plugged into it.
      batch: `encoder_input_tokens` and `encoder_segment_ids` [B, S] and, where there is an encoder prompt, `encoder_prompt_slots` [B, S];
        `decoder_start_tokens` [B, T] and `decoder_start_slots` [B, T] say what stands in the decoder before the first generated token
        (`data.features.decoder_start`). Without them that is `settings.start_id`, or where it is None the last input token.
      max_tokens: the most tokens a row may have, the end token included; at least 1. Static under jit.
      settings: see `Decoding`. Static under jit.
      keys_B: a random key a row, wanted when the temperature is above 0; a row's draws depend on its own key only.
      shared: how many columns the rows have in common; see `encode`. Static under jit.

    Raises UserError where an encoder-decoder has no start token.
    """
    if settings.num_beams > 1:
        return search(model, batch, max_tokens=max_tokens, settings=settings, shared=shared)[0][:, 0]
    step, logits_BV, cache = begin(model, batch, max_tokens=max_tokens, settings=settings, shared=shared)
    eos_ids, pad_id = settings.ends()

    def choose(logits_BV: Array, number: Array) -> Array:
        if settings.temperature == 0.0:
            return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
        assert keys_B is not None, "sampling wants a key for each row"
        step_keys_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, number)
        return sampling.draw(logits_BV, step_keys_B, temperature=settings.temperature, top_k=settings.top_k, top_p=settings.top_p)

    def unfinished(state: tuple) -> Array:
        number, _, _, ended_B, _ = state
        return (number < max_tokens) & ~jnp.all(ended_B)

    def advance(state: tuple) -> tuple:
        number, tokens_BT, last_B, ended_B, cache = state
        logits_BV, cache = step(last_B[:, None], cache)
        last_B = jnp.where(ended_B, pad_id, choose(logits_BV, number))
        tokens_BT = jax.lax.dynamic_update_slice_in_dim(tokens_BT, last_B[:, None], number, axis=1)
        return number + 1, tokens_BT, last_B, ended_B | beam.among(last_B, eos_ids), cache

    first_B = choose(logits_BV, jnp.int32(0))
    tokens_BT = jnp.full((first_B.shape[0], max_tokens), pad_id, jnp.int32).at[:, 0].set(first_B)
    state = (jnp.int32(1), tokens_BT, first_B, beam.among(first_B, eos_ids), cache)
    return jax.lax.while_loop(unfinished, advance, state)[1]


def search(model: T5 | Decoder | Model, batch: Batch, *, max_tokens: int, settings: Decoding, shared: int = 0) -> tuple[Array, Array]:
    """The texts that beam search keeps for each row, best first: tokens [B, num_beams, max_tokens] and scores [B, num_beams].

    Arguments as of `generate`, results as of `beam.search`.
    """
    step, logits_BV, cache = begin(model, batch, max_tokens=max_tokens, settings=settings, shared=shared)
    eos_ids, pad_id = settings.ends()
    return beam.search(
        step,
        logits_BV,
        cache,
        max_tokens=max_tokens,
        num_beams=settings.num_beams,
        length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping,
        eos_ids=eos_ids,
        pad_id=pad_id,
    )


def encode(model: T5 | Decoder | Model, batch: Batch, *, length: int, shared: int = 0) -> Cache:
    """The cache of the inputs, with room for `length` decoder positions.

    Args:
      model: as in `generate`.
      batch: its `encoder_` arrays are read.
      length: positions to come.
      shared: how many columns at the beginning are the same in all rows, such as those of a prompt before the inputs. A decoder-only
        model with a causal mask reads them once and repeats their keys and values; to others, whose view of the beginning depends on what
        follows, it makes no difference.
    """
    inputs_BS = jnp.asarray(batch[_TOKENS] if _TOKENS in batch else batch[_FEATURES])
    beside: dict[str, Any] = {name: jnp.asarray(batch[key]) for name, key in _BESIDE.items() if key in batch}
    encoded: Any
    # A prompt with `among` is made of the input that it stands in.
    if shared and isinstance(model, Decoder) and model.config.mask == "causal" and not hasattr(model.embed.prompt, "among"):
        begun = model.encode(inputs_BS[:1, :shared], **{name: value[:1, :shared] for name, value in beside.items()})
        inputs_BS, beside = inputs_BS[:, shared:], {name: value[:, shared:] for name, value in beside.items()}
        encoded = model.encode(inputs_BS, **beside, cache=take_rows(begun, jnp.zeros(inputs_BS.shape[0], jnp.int32)))
    else:
        encoded = model.encode(inputs_BS, **beside)
    return model.init_cache(encoded, beside["segment_ids_BS"], length=length)


def without_end(tokens: Sequence[int] | np.ndarray, *, eos_ids: Sequence[int] = (EOS_ID,), pad_id: int = PAD_ID) -> list[int]:
    """The ids of one generated row up to, and without, its first end token; padding at the end is cut off too."""
    ids = [int(token) for token in tokens]
    for position, token in enumerate(ids):
        if token in eos_ids:
            return ids[:position]
    while ids and ids[-1] == pad_id:
        ids.pop()
    return ids


def cut(text: str, stop_strings: Sequence[str]) -> str:
    """The text up to where the first of the stop strings begins."""
    return text[: min((place for each in stop_strings if (place := text.find(each)) >= 0), default=len(text))]


def begin(model: Any, batch: Batch, *, max_tokens: int, settings: Decoding, shared: int) -> tuple[Step, Array, Cache]:
    """What appends a token to each row, the logits [B, V] of the first token, and the cache with room for the rest."""
    assert max_tokens >= 1, max_tokens
    model = settled(model)
    batch, start_BT, start_slots_BT = _started(model, batch, settings)
    # The last generated token is never read again, so the cache needs no place for it.
    cache = encode(model, batch, length=start_BT.shape[1] + max_tokens - 1, shared=shared)
    logits_BTV, cache = model.decode_step(start_BT, cache, slots_BT=start_slots_BT)

    def step(tokens_B1: Array, cache: Cache) -> tuple[Array, Cache]:
        logits_B1V, cache = model.decode_step(tokens_B1, cache)
        return logits_B1V[:, 0], cache

    return step, logits_BTV[:, -1], cache


def settled(model: Any) -> Any:
    """The model with what the generators of its stacks make in place of them: made once, not at each token."""
    if not isinstance(model, nnx.Module):
        return model
    model = nnx.merge(*nnx.split(model))
    for _, module in list(nnx.iter_modules(model)):
        if getattr(module, "generator", None) is not None:
            stack: Any = module
            stack.layers = stack.filled()
            stack.generator = nnx.data(None)
    return model


def _started(model: Any, batch: Batch, settings: Decoding) -> tuple[Batch, Array, Array | None]:
    """The batch, and the tokens [B, T] and slots that the decoder starts with."""
    if "decoder_start_tokens" in batch:
        slots = batch.get("decoder_start_slots")
        return batch, jnp.asarray(batch["decoder_start_tokens"]), None if slots is None else jnp.asarray(slots)
    segments_BS = jnp.asarray(batch["encoder_segment_ids"])
    rows, length = segments_BS.shape
    if settings.start_id is not None:
        return batch, jnp.full((rows, 1), settings.start_id, jnp.int32), None
    if isinstance(model, T5):
        raise UserError("Decoding.start_id: wanted the token an encoder-decoder starts with, got None; set it to 0, as T5 has it")
    # The last input becomes the start; where it stood there is padding.
    last_B1 = length - 1 - jnp.argmax(segments_BS[:, ::-1] > 0, axis=1, keepdims=True)
    start_BT = jnp.take_along_axis(jnp.asarray(batch["encoder_input_tokens"]), last_B1, axis=1)
    left = dict(batch) | {"encoder_segment_ids": jnp.where(jnp.arange(length)[None] == last_B1, 0, segments_BS)}
    if "encoder_prompt_slots" not in batch:
        return left, start_BT, None
    slots_BS = jnp.asarray(batch["encoder_prompt_slots"])
    left["encoder_prompt_slots"] = jnp.where(left["encoder_segment_ids"] > 0, slots_BS, TOKEN_SLOT)
    return left, start_BT, jnp.take_along_axis(slots_BS, last_B1, axis=1)
