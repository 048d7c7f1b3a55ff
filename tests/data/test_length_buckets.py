"""Batches of similar lengths: the examples of the stream, in few shapes, from any step on."""

import collections
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import features, length_buckets, mixtures, row_tasks
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError
from tests.data.small import BYTES

WINDOW = length_buckets.WINDOW_BATCHES
LENGTHS = {"input_length": 32, "target_length": 8}


@dataclasses.dataclass(frozen=True)
class Uneven:
    """300 rows of 1 to 36 bytes of inputs, mostly few, and 1 to 9 of targets; every third of them with few has choices."""

    name: str = "uneven"

    @property
    def task_names(self) -> tuple[str, ...]:
        return (self.name,)

    def tasks(self, vocabulary: Any) -> list[Any]:
        def read(split: str) -> list[TextRow]:
            del split
            rng = np.random.default_rng(0)
            rows = []
            for number in range(300):
                inputs, targets = int(rng.integers(1, 7)) ** 2, int(rng.integers(1, 10)) if number % 8 == 0 else 1
                text, wanted = f"{number:03}".ljust(inputs, "x")[:inputs], "y" * targets
                rows.append(TextRow(text, wanted, (wanted, "zzz") if number % 3 == 0 and targets < 7 else ()))
            return rows

        return [row_tasks.register(self.name, settings=self, vocabulary=vocabulary, read=read, splits=("train",))]


def batches(count: int, **changes: Any) -> list[features.Batch]:
    given: Any = {"vocabulary": BYTES.load, "batch_size": 4, "seed": 1, "length_buckets": 3} | LENGTHS | changes
    with mixtures.training_batches(Uneven(), **given) as stream:
        return list(itertools.islice(stream, count))


def counted(made: list[features.Batch]) -> collections.Counter[tuple[Any, ...]]:
    return collections.Counter(
        (tuple(each["inputs"].tolist()), tuple(each["targets"].tolist())) for batch in made for each in features.unpack(batch)
    )


def test_a_window_holds_the_examples_that_it_has_without_buckets() -> None:
    bucketed, plain = batches(2 * WINDOW), batches(2 * WINDOW, length_buckets=1)
    for part in (slice(0, WINDOW), slice(WINDOW, None)):
        assert counted(bucketed[part]) == counted(plain[part])
    computed = [sum(batch["encoder_input_tokens"].size for batch in made) for made in (bucketed, plain)]
    assert computed[0] < 0.8 * computed[1]


def test_shapes_are_few_and_nothing_is_cut_that_the_whole_length_holds() -> None:
    shapes = {(batch["encoder_input_tokens"].shape, batch["decoder_input_tokens"].shape) for batch in batches(2 * WINDOW)}
    assert shapes == {((4, 32), (4, 8)), ((4, 16), (4, 4)), ((4, 8), (4, 2))}


@pytest.mark.parametrize("start", [1, WINDOW - 1, WINDOW, WINDOW + 5])
@pytest.mark.parametrize("num_choices", [0, 2])
def test_resuming_gives_the_stream_never_interrupted(start: int, num_choices: int) -> None:
    whole = batches(WINDOW + 8, num_choices=num_choices, prompt=PromptLayout(2))
    again = batches(WINDOW + 8 - start, num_choices=num_choices, prompt=PromptLayout(2), start_step=start)
    for one, other in zip(again, whole[start:], strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_shards_together_are_the_whole_and_agree_on_shapes() -> None:
    whole = batches(6, start_step=3)
    shards = [batches(6, start_step=3, shard=(index, 2)) for index in range(2)]
    for step, batch in enumerate(whole):
        parts = [shard[step] for shard in shards]
        assert counted([batch]) == counted(parts)
        assert {part["encoder_input_tokens"].shape for part in parts} == {(2, batch["encoder_input_tokens"].shape[1])}


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 12)), min_size=1, max_size=12),
    buckets=st.integers(1, 5),
    bos=st.sampled_from([None, 7]),
)
def test_every_example_is_in_the_shortest_bucket_that_holds_it(sizes: list[tuple[int, int]], buckets: int, bos: int | None) -> None:
    prompt = PromptLayout(2, delimiters=features.Delimiters(bos=bos))
    for inputs, targets in sizes:
        example = {"inputs": [*range(3, inputs + 2), 1], "targets": [*range(3, targets + 2), 1]}
        bucket = length_buckets.bucket_of(example, buckets=buckets, prompt=prompt, **LENGTHS)
        whole = features.unpack(features.layout([example], prompt=prompt, **LENGTHS), delimiters=prompt.delimiters)
        made = [
            features.unpack(
                features.layout([example], prompt=prompt, **length_buckets.lengths(number, **LENGTHS)), delimiters=prompt.delimiters
            )
            for number in range(buckets)
        ]
        same = [all(np.array_equal(one[0][name], whole[0][name]) for name in whole[0]) for one in made]
        assert same[bucket]
        assert not any(same[bucket + 1 :]) or inputs > LENGTHS["input_length"] or targets > LENGTHS["target_length"]


def test_packed_rows_are_not_bucketed() -> None:
    with pytest.raises(UserError, match="length_buckets"):
        batches(1, packed=True)
