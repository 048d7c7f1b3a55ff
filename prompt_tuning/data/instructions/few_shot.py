"""Exemplars before the input: solved examples of the same task, drawn for each example, and never the example itself.

The exemplars of a row are drawn by a hash of its identity, so that no order, shard or restart changes them. What has the row's own input is
none of its exemplars, whatever it is called.
"""

import dataclasses
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from prompt_tuning.data.instructions.record import Record

T = TypeVar("T")


def with_exemplars(
    records: Sequence[Record],
    pool: Sequence[Record],
    *,
    count: int,
    seed: int,
    input_tokens: int | None = None,
    count_tokens: Callable[[str], int] = len,
) -> list[Record]:
    """The records with exemplars before their inputs: `input`, a line break, `target`, a blank line, for each.

    Args:
      records: the examples.
      pool: what exemplars are drawn from: the training examples of the same task.
      count: of exemplars; fewer where the pool holds no more.
      seed: of the drawing.
      input_tokens: exemplars are added, from the last to the first, while the whole has at most so many tokens; None adds them all.
      count_tokens: the length of a text in tokens.
    """
    return [_with_exemplars(record, pool, count, seed, input_tokens, count_tokens) for record in records]


def first_that_fit(
    solved: Sequence[T], told: Callable[[Sequence[T]], str], *, input_tokens: int | None, count_tokens: Callable[[str], int]
) -> str:
    """What `told` makes of the first exemplars: all, or without the last ones until it has at most so many tokens."""
    text = told(solved)
    while solved and input_tokens is not None and count_tokens(text) > input_tokens:
        solved = solved[:-1]
        text = told(solved)
    return text


def _with_exemplars(
    record: Record, pool: Sequence[Record], count: int, seed: int, input_tokens: int | None, count_tokens: Callable[[str], int]
) -> Record:
    text = record.row.inputs
    for exemplar in _drawn(record, pool, count, seed):
        longer = f"{exemplar.row.inputs}\n{exemplar.row.targets}\n\n{text}"
        if input_tokens is not None and count_tokens(longer) > input_tokens:
            break
        text = longer
    return dataclasses.replace(record, row=dataclasses.replace(record.row, inputs=text))


def _drawn(record: Record, pool: Sequence[Record], count: int, seed: int) -> list[Record]:
    digest = hashlib.sha256(f"exemplars\x1f{seed}\x1f{record.identity}".encode("utf-8", "surrogatepass")).digest()
    places = random.Random(digest)
    found: list[Record] = []
    seen = {record.row.inputs}
    # A draw without replacement that looks at few of the pool: what is drawn again, or is the example itself, is passed over.
    tried: set[int] = set()
    while len(found) < count and len(tried) < len(pool):
        place = places.randrange(len(pool))
        if place in tried:
            continue
        tried.add(place)
        if pool[place].identity != record.identity and pool[place].row.inputs not in seen:
            seen.add(pool[place].row.inputs)
            found.append(pool[place])
    return found
