"""Variations of Flan 2022 (Longpre et al. 2023, arXiv:2301.13688, section 3): options listed in many ways, and inputs turned into targets.

What is drawn is drawn by a hash of an example's identity. The wordings are this project's own.
"""

import dataclasses
import hashlib
import random
import string
from collections.abc import Sequence

from prompt_tuning.data.instructions.record import Record
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.templates import options_block
from prompt_tuning.errors import UserError

_HEADERS = ("Options:", "OPTIONS:", "Choices:", "Possible answers:", "Pick one:", "Select from:")
_BULLETS = ("- ", "* ", "+ ")
# How a choice is lettered, and how the letter alone is written as the answer.
_LETTERS = (("{})", "{}"), ("({})", "({})"), ("{}.", "{}"), ("[{}]", "{}"))
_ASKS = (
    "Which request was answered like this?\n{}",
    "Write an input that calls for this output.\n{}",
    "{}\nThat is the answer. Give the task it answers.",
    "Output: {}\nInput:",
)


def with_options(record: Record, *, lettered: bool, seed: int) -> Record:
    """A record whose answer choices are listed behind its input, in an order of their own under a header and with marks that are drawn.

    Where the input lists them as templates do, that list is replaced. With letters the target is the right choice's letter, and the letters
    are the answer choices. A record without answer choices stays as it is; its references are no answers any more and are dropped.

    Raises UserError for more choices than there are letters.
    """
    choices = record.row.answer_choices
    if not choices:
        return record
    if lettered and len(choices) > len(string.ascii_uppercase):
        raise UserError(f"{record.where}: {len(choices)} choices, wanted at most 26 to letter; set OPTIONS = 'listed'")
    rng = _random("options", record, seed)
    order = rng.sample(range(len(choices)), len(choices))
    shown = [choices[place] for place in order]
    if lettered:
        mark, answer = rng.choice(_LETTERS)
        letters = string.ascii_uppercase[: len(choices)]
        listed = [f"{mark.format(letter)} {choice}" for letter, choice in zip(letters, shown, strict=True)]
        names = tuple(answer.format(letter) for letter in letters)
        target = names[order.index(choices.index(record.row.targets))]
    else:
        bullet = rng.choice(_BULLETS)
        listed, names, target = [f"{bullet}{choice}" for choice in shown], tuple(shown), record.row.targets
    block = "\n".join([rng.choice(_HEADERS), *listed])
    before = record.row.inputs
    earlier = options_block(choices)
    inputs = before.replace(earlier, block) if earlier in before else f"{before}\n{block}"
    row = dataclasses.replace(record.row, inputs=inputs, targets=target, answer_choices=names, references=())
    return dataclasses.replace(record, row=row)


def with_suffix(record: Record) -> Record:
    """A record whose answer choices stand behind its input as FLAN lists them (Wei et al. 2021, section 2.3), unless they do already."""
    block = options_block(record.row.answer_choices)
    if not record.row.answer_choices or block in record.row.inputs:
        return record
    return dataclasses.replace(record, row=dataclasses.replace(record.row, inputs=f"{record.row.inputs}\n{block}"))


def without_options(record: Record) -> Record:
    """A record without the list of its answer choices. Choices that are part of what is asked stay."""
    block = options_block(record.row.answer_choices)
    if not record.row.answer_choices or block not in record.row.inputs:
        return record
    inputs = record.row.inputs.replace(f"\n{block}", "").replace(block, "").strip()
    return dataclasses.replace(record, row=dataclasses.replace(record.row, inputs=inputs))


def inverted(records: Sequence[Record], *, frac: float, seed: int) -> list[Record]:
    """The records, of which a share is turned round: the target is given and the input asked for."""
    found = []
    for record in records:
        rng = _random("inverted", record, seed)
        if rng.random() >= frac:
            found.append(record)
            continue
        row = TextRow(rng.choice(_ASKS).format(record.row.targets), record.row.inputs, group=record.row.group)
        found.append(dataclasses.replace(record, row=row))
    return found


def _random(what: str, record: Record, seed: int) -> random.Random:
    return random.Random(hashlib.sha256(f"{what}\x1f{seed}\x1f{record.identity}".encode("utf-8", "surrogatepass")).digest())
