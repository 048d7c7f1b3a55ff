"""Batches of rows of similar length, each padded to the shortest of a few lengths that holds it: the alternative to packing.

Bucket i is rows whose inputs and targets both fit into the longest lengths divided by 2^i. Of each WINDOW_BATCHES batches of the stream the
rows are ordered by bucket, in the order of the stream within it, cut into batches, and the batches come in a drawn order. So a window's
examples are those that it has without buckets, and a step number is all that resuming needs: its window is read again.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.example_tables import number_of
from prompt_tuning.data.features import Example, PromptLayout

WINDOW_BATCHES = 32


def lengths(bucket: int, *, input_length: int, target_length: int) -> dict[str, int]:
    """The lengths to which the rows of a bucket are padded, by argument of `features.layout`."""
    return {"input_length": -(-input_length // 2**bucket), "target_length": -(-target_length // 2**bucket)}


def bucket_of(example: Example, *, buckets: int, input_length: int, target_length: int, prompt: PromptLayout) -> int:
    """The last bucket, the one of the shortest rows, into which an example fits; what fits into none is cut to bucket 0."""
    source = len(example["inputs"]) + (prompt.delimiters.bos is not None)
    target = max(len(example["targets"]), *map(len, example.get("choices") or ((),)))
    for bucket in range(buckets - 1, 0, -1):
        held = lengths(bucket, input_length=input_length, target_length=target_length)
        if source <= held["input_length"] and target <= held["target_length"]:
            return bucket
    return 0


def window_of(step: int) -> int:
    """The first step of the window that a step is in."""
    return step - step % WINDOW_BATCHES


def batches(
    examples: Iterator[Example],
    *,
    start_step: int,
    batch_size: int,
    seed: int,
    buckets: int,
    input_length: int,
    target_length: int,
    prompt: PromptLayout,
) -> Iterator[tuple[int, Sequence[Example]]]:
    """The bucket and the examples of each batch from a step on, of an endless stream that begins with the step's window."""
    for first in itertools.count(window_of(start_step), WINDOW_BATCHES):
        window = itertools.islice(examples, WINDOW_BATCHES * batch_size)
        held: Any = {"buckets": buckets, "input_length": input_length, "target_length": target_length, "prompt": prompt}
        rows = sorted(((bucket_of(example, **held), example) for example in window), key=lambda row: row[0])
        order = np.random.default_rng([number_of("length buckets"), seed, first]).permutation(WINDOW_BATCHES)
        for place in order[max(start_step - first, 0) :]:
            chosen = rows[place * batch_size : (place + 1) * batch_size]
            yield chosen[0][0], [example for _, example in chosen]
