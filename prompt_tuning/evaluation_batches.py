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
    """What shapes an example: most input tokens (longer ones are cut), most generated tokens, and where the prompt stands."""

    input_length: int
    target_length: int
    prompt: features.PromptLayout = dataclasses.field(default_factory=features.PromptLayout)


def bucket(length: int, smallest: int, largest: int | None) -> int:
    """The least power of two that is at least `length` and `smallest`, and at most `largest`."""
    size = max(smallest, 1 << max(length - 1, 0).bit_length())
    return size if largest is None else min(size, largest)


def batches(sizes: Sequence[Any], batch_size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Indices in order of size, in batches of equal length, and how many of them count: the rest are copies of the last."""
    order = np.array(sorted(range(len(sizes)), key=lambda i: sizes[i]), np.int64)
    rows = min(batch_size, bucket(len(order), 1, None))
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        yield np.concatenate([chosen, np.repeat(chosen[-1:], rows - len(chosen))]), len(chosen)


def encoder_batch(examples: Sequence[Example], input_length: int, lengths: Lengths) -> Batch:
    """The `encoder_` arrays of `features.layout`, and `task_ids` [B] where examples are numbered by task."""
    own = [{"task": example["task"]} if "task" in example else {} for example in examples]
    rows = [{"inputs": example["inputs"], "targets": [features.EOS_ID]} | task for example, task in zip(examples, own, strict=True)]
    laid = features.layout(rows, input_length=input_length, target_length=1, prompt=lengths.prompt)
    kept = {name: value for name, value in laid.items() if name.startswith("encoder_")}
    if all(isinstance(task.get("task"), int) for task in own):
        kept["task_ids"] = np.array([task["task"] for task in own], np.int32)
    return kept


def decoder_batch(targets: Sequence[Sequence[int]], target_length: int, lengths: Lengths) -> Batch:
    """The `decoder_` arrays of `features.layout`."""
    rows = [{"inputs": [features.EOS_ID], "targets": list(target), "task": 0} for target in targets]
    laid = features.layout(rows, input_length=1, target_length=target_length, prompt=lengths.prompt)
    return {name: value for name, value in laid.items() if name.startswith("decoder_")}


def decoder_start(rows: int, prompt: features.PromptLayout, settings: Decoding) -> Batch:
    """What the decoder starts with where it has a prompt; nothing where the start token alone says it."""
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
    """The length of a prompt that stands at the beginning of all rows, or 0. (Not of whatever they share: each length is compiled anew.)"""
    length, names = lengths.prompt.encoder_length, ("encoder_input_tokens", "encoder_prompt_slots", "encoder_segment_ids")
    return length if length and all((batch[name][:, :length] == batch[name][:1, :length]).all() for name in names) else 0
