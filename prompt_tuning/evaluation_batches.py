"""How examples are laid into batches to be evaluated: sorted by length, few shapes, prompts in their places."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data import features
from prompt_tuning.decoding import Decoding
from prompt_tuning.errors import UserError

Example = Mapping[str, Any]
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Lengths:
    """What shapes an example: most input tokens (BOS counted; longer ones are cut), most generated tokens, and where the prompt stands."""

    input_length: int
    target_length: int
    prompt: features.PromptLayout = dataclasses.field(default_factory=features.PromptLayout)


def bucket(length: int, smallest: int, largest: int | None) -> int:
    """The least power of two that is at least `length` and `smallest`, and at most `largest`."""
    size = max(smallest, 1 << max(length - 1, 0).bit_length())
    return size if largest is None else min(size, largest)


def input_bucket(example: Example, lengths: Lengths) -> int:
    """The input length that an example is laid in."""
    return bucket(len(example["inputs"]) + (lengths.prompt.delimiters.bos is not None), 32, lengths.input_length)


def batches(sizes: Sequence[Any], batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices in order of size, in batches of equal length, and how many of them count: the rest are copies of the last."""
    order = np.array(sorted(range(len(sizes)), key=lambda i: sizes[i]), np.int64)
    rows = min(batch_size, bucket(len(order), 1, None))
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        yield np.concatenate([chosen, np.repeat(chosen[-1:], rows - len(chosen))]), len(chosen)


def encoder_batch(examples: Sequence[Example], input_length: int, lengths: Lengths) -> Batch:
    """The `encoder_` arrays of `features.layout`, and `task_ids` [B] where examples are numbered by task."""
    kept = _half("encoder_", _beginnings(examples, lengths), input_length, 1, lengths)
    if all(isinstance(example.get("task"), int) for example in examples):
        kept["task_ids"] = np.array([example["task"] for example in examples], np.int32)
    return kept


def decoder_batch(examples: Sequence[Example], input_length: int, target_length: int, lengths: Lengths) -> Batch:
    """The `decoder_` arrays of `features.layout`."""
    return _half("decoder_", examples, input_length, target_length, lengths)


def _beginnings(examples: Sequence[Example], lengths: Lengths) -> list[dict[str, Any]]:
    """The examples with targets that say nothing."""
    return [{**example, "targets": [lengths.prompt.delimiters.eos]} for example in examples]


def _half(side: str, examples: Sequence[Example], input_length: int, target_length: int, lengths: Lengths) -> Batch:
    laid = features.layout(examples, input_length=input_length, target_length=target_length, prompt=lengths.prompt)
    return {name: value for name, value in laid.items() if name.startswith(side)}


def decoder_start(examples: Sequence[Example], input_length: int, lengths: Lengths, settings: Decoding) -> Batch:
    """What the decoder starts with where it has a prompt, or is all there is; nothing where the start token alone says it."""
    rows, prompt = len(examples), lengths.prompt
    if prompt.delimiters.start is None:
        laid = decoder_batch(_beginnings(examples, lengths), input_length, 1, lengths)
        names = {"decoder_input_tokens": "decoder_start_tokens", "decoder_prompt_slots": "decoder_start_slots"}
        return {new: laid[old] for old, new in names.items() if old in laid}
    if not prompt.decoder_length:
        return {}
    if settings.start_id is None:
        raise UserError(
            "Decoding.start_id: wanted a token, beside which the prompt of the decoder stands, got None; set it, or prompt the inputs"
        )
    tokens_T, slots_T = features.decoder_start(prompt)
    tokens_T = np.where(slots_T == features.TOKEN_SLOT, settings.start_id, tokens_T).astype(np.int32)
    return {"decoder_start_tokens": np.tile(tokens_T, (rows, 1)), "decoder_start_slots": np.tile(slots_T, (rows, 1))}


def shared_columns(batch: Batch, lengths: Lengths) -> int:
    """The length of a prompt at the beginning of all rows, BOS counted, or 0. (Not of all they share: each length is compiled anew.)"""
    prompt = lengths.prompt
    length = prompt.encoder_length and prompt.encoder_length + (prompt.delimiters.bos is not None)
    names = ("encoder_input_tokens", "encoder_prompt_slots", "encoder_segment_ids")
    return length if length and all((batch[name][:, :length] == batch[name][:1, :length]).all() for name in names) else 0
