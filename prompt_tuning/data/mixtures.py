"""Training batches and evaluation examples from SeqIO tasks: mixing, shuffling, sharding, exact resumption.

A finite task is read through SeqIO and tokenized once, and its token ids are held in memory (about 150 bytes for an example of 40 tokens).
Position k of its stream is row `permutation(seed, epoch)[k mod n]` of epoch k // n, so a stream can begin at any position at no cost and is
the same however it is cut into runs and shards. A streaming task (pretraining text) is read in order, and beginning at k reads and drops k
examples.

Mixing rates: examples-proportional with a cap and a temperature (Raffel et al. 2020, section 3.5.2), equal, or given weights.
"""

import dataclasses
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from prompt_tuning.data import choices, features, lazy_imports, row_tasks
from prompt_tuning.data import length_buckets as buckets
from prompt_tuning.data.example_tables import ExampleTable, Shuffled, dataset_of, example_table, no_example, number_of, title_of
from prompt_tuning.data.prefetch import Prefetched
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio


Shard = tuple[int, int]
STREAM_EXAMPLES = 512
_DRAWS_PER_BLOCK = 4096
_BEGINNING = threading.Lock()


class Source(Protocol):
    """Where examples come from: a frozen dataclass that gin fills."""

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of its tasks in reports, in the order of `tasks`."""
        ...

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[Any]:
        """Its tasks, `row_tasks.RowTask` or `text_tasks.TextTask`, under names that hold a hash of the settings."""
        ...


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several sources as one.

    Attributes:
      sources: sources, mixtures too.
      rates: `proportional` to the number of training examples of each task, `equal` for every task, or one weight a source; within a source
        that has several tasks these weights are shared out in proportion to their examples.
      cap: counts of examples above it count as the cap (Raffel et al. call it K).
      temperature: rates are raised to 1 / temperature; 1 is proportional, large is equal.
    """

    sources: tuple[Source, ...] = ()
    rates: Literal["proportional", "equal"] | tuple[float, ...] = "proportional"
    cap: int | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sources", tuple(self.sources))
        if not self.sources:
            raise UserError("Mixture.sources: wanted at least one source, got none")
        if not isinstance(self.rates, str):
            object.__setattr__(self, "rates", tuple(self.rates))
            if len(self.rates) != len(self.sources) or min(self.rates) < 0 or sum(self.rates) <= 0:
                raise UserError(f"Mixture.rates: wanted one weight of 0 or more for each of {len(self.sources)} sources, got {self.rates}")
        elif self.rates not in ("proportional", "equal"):
            raise UserError(f"Mixture.rates: wanted 'proportional', 'equal' or a tuple of weights, got {self.rates!r}")
        if self.cap is not None and self.cap < 1:
            raise UserError(f"Mixture.cap: wanted at least 1 example, got {self.cap}")
        if self.temperature <= 0:
            raise UserError(f"Mixture.temperature: wanted more than 0, got {self.temperature}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """The names of the tasks of all sources."""
        return tuple(name for source in self.sources for name in source.task_names)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[Any]:
        """The tasks of all sources."""
        return [task for source in self.sources for task in source.tasks(vocabulary)]


def mixing_rates(source: Source, sizes: Sequence[int | None]) -> np.ndarray:
    """The share of each task of a source, summing to 1: float64 [tasks].

    Args:
      source: the source; one that is no Mixture is mixed by its own `weights`, where it has these, else in proportion, without a cap.
      sizes: the number of training examples of each task; None for one without end, which only `equal` and given weights can mix. One of
        none, which is there to be evaluated on, is never drawn.
    """
    source = getattr(source, "mixed", source)  # What `provenance.HeldOut` leaves of a mixture is mixed as it was.
    if hasattr(source, "weights"):
        weights = np.array(source.weights(sizes), np.float64)
        return weights / (weights.sum() or 1.0)
    if not isinstance(source, Mixture):
        return _proportional(sizes, None, 1.0)
    if source.rates == "proportional":
        return _proportional(sizes, source.cap, source.temperature)
    drawn = np.array([size != 0 for size in sizes], np.float64)
    if source.rates == "equal":
        return drawn / (drawn.sum() or 1.0)
    shares, start = [], 0
    for inner, weight in zip(source.sources, source.rates, strict=True):
        count = len(inner.task_names)
        part = sizes[start : start + count]
        inner = getattr(inner, "mixed", inner)
        own = isinstance(inner, Mixture) or hasattr(inner, "weights")
        within = mixing_rates(inner, part) if own else _proportional(part, source.cap, source.temperature)
        shares.append(float(weight) * within)
        start += count
    rates = np.concatenate(shares) / sum(source.rates)
    return rates if drawn.all() else rates * drawn / ((rates * drawn).sum() or 1.0)


def _proportional(sizes: Sequence[int | None], cap: int | None, temperature: float) -> np.ndarray:
    if len(sizes) == 1:
        return np.ones(1)
    if any(size is None for size in sizes):
        raise UserError("a source without end cannot be mixed in proportion to its examples; set Mixture.rates to 'equal' or to weights")
    rates = np.array([min(size or 0, cap or size or 0) for size in sizes], np.float64) ** (1 / temperature)
    return rates / (rates.sum() or 1.0)


def tokenized_examples(
    task: "seqio.Task",
    *,
    split: str = "train",
    seed: int = 0,
    shuffle: bool = True,
    repeat: bool = True,
    shard: Shard = (0, 1),
    skip: int = 0,
    table: ExampleTable | None = None,
    lengths: dict[str, int] | None = None,
) -> Iterator[features.Example]:
    """The examples of one task, EOS included, not trimmed.

    Args:
      task: a SeqIO task; one with `streaming` true comes in its own order, without end.
      split: of the task.
      seed: of the order, which is another one each epoch.
      shuffle: whether to shuffle; a streaming task is never shuffled.
      repeat: whether to go on after the last example.
      shard: `(index, shards)`: this shard gets positions index, index + shards, ... of the one stream.
      skip: begins at this position of the whole stream (before sharding).
      table: the task's examples where they have been read already.
      lengths: `inputs` and `targets` lengths a streaming task fills.
    """
    index, shards = shard
    first = skip + (index - skip) % shards
    if getattr(task, "streaming", False):
        stream = dataset_of(task, split, lengths=lengths, seed=seed, epochs=None if repeat else 1).skip(first).as_numpy_iterator()
        yield from itertools.islice(stream, 0, None, shards)
        return
    table = example_table(task, split) if table is None else table
    shuffled = Shuffled(table, title_of(task), seed)
    for position in itertools.count(first, shards):
        if position >= len(table) and not repeat:
            return
        yield shuffled[position] if shuffle else table[position % len(table)]


def evaluation_examples(
    task: "seqio.Task", split: str, limit: int | None = None, *, input_length: int = 128, target_length: int = 32
) -> list[dict[str, Any]]:
    """The first `limit` examples of a split (None: all), in order, with texts; `answer_choices` and `references` are tuples or None.

    A streaming task gives STREAM_EXAMPLES where there is no limit, made to fill the two lengths; they matter to no other task.
    Raises UserError, naming task and split, when there is no example.
    """
    examples = list(elements(task, split, limit, input_length=input_length, target_length=target_length))
    if not examples:
        raise no_example(task, split)
    return examples


def elements(
    task: "seqio.Task", split: str, limit: int | None = None, *, input_length: int = 128, target_length: int = 32
) -> Iterator[dict[str, Any]]:
    """As `evaluation_examples`, one at a time and perhaps none."""
    if getattr(task, "read", None) is not None:
        yield from row_tasks.examples(task, split, limit)
        return
    from prompt_tuning.data import text_tasks

    if getattr(task, "streaming", False):
        lengths = {"inputs": input_length, "targets": target_length}
        dataset = dataset_of(task, split, lengths=lengths, seed=0, limit=limit or STREAM_EXAMPLES)
    else:
        dataset = dataset_of(task, split, limit=limit)
    yield from map(text_tasks.as_example, dataset.as_numpy_iterator())


def mixed_examples(
    source: Source,
    *,
    vocabulary: "seqio.Vocabulary",
    input_length: int,
    target_length: int,
    seed: int,
    split: str = "train",
    shard: Shard = (0, 1),
    skip: int = 0,
    with_choices: bool = False,
) -> Iterator[features.Example]:
    """The endless stream of a source's examples: position i holds the next example of the task drawn for it by the mixing rates.

    Tasks without the split, which are there to be evaluated on, are never drawn.

    Each says in `task` which of the source's tasks it is from and, where asked for, in `choices` its answer choices (`choices.Reader`).
    `skip` and `shard` as in `tokenized_examples`: the streams of all shards, interleaved, are the stream of one.
    """
    tasks = source.tasks(vocabulary)
    tables, _, rates = tables_and_rates(source, tasks, split, with_choices=with_choices)
    lengths = {"inputs": input_length, "targets": target_length}
    index, shards = shard
    first = skip + (index - skip) % shards
    if len(tasks) == 1:
        only = tokenized_examples(tasks[0], split=split, seed=seed, shard=shard, skip=skip, table=tables[0], lengths=lengths)
        yield from ({**example, "task": 0} for example in only)
        return
    drawn = np.zeros(len(tasks), np.int64)
    first_block = first // _DRAWS_PER_BLOCK
    for block in range(first_block):
        drawn += np.bincount(_draws(seed, block, rates), minlength=len(tasks))
    orders = [None if table is None else Shuffled(table, title_of(task), seed) for task, table in zip(tasks, tables, strict=True)]
    streams: list[Iterator[features.Example] | None] = [None] * len(tasks)
    for block in itertools.count(first_block):
        for offset, choice in enumerate(_draws(seed, block, rates)):
            position = block * _DRAWS_PER_BLOCK + offset
            mine = position >= first and (position - first) % shards == 0
            order = orders[choice]
            if order is not None and mine:
                yield {**order[int(drawn[choice])], "task": int(choice)}
            elif order is None and position >= first:
                stream = streams[choice]
                if stream is None:
                    stream = tokenized_examples(tasks[choice], split=split, seed=seed, skip=int(drawn[choice]), lengths=lengths)
                    streams[choice] = stream
                example = next(stream)
                if mine:
                    yield {**example, "task": int(choice)}
            drawn[choice] += 1


def tables_and_rates(
    source: Source, tasks: Sequence[Any], split: str, *, with_choices: bool = False
) -> tuple[list[ExampleTable | None], list[int | None], np.ndarray]:
    """The examples, their number and the mixing rate of each task of a source.

    A task without end has no table and no number, one without the split no table and 0 examples.
    """
    there = with_split(tasks, split)
    tables = [
        example_table(task, split, with_choices) if task in there and not getattr(task, "streaming", False) else None for task in tasks
    ]
    sizes = [0 if task not in there else None if table is None else len(table) for task, table in zip(tasks, tables, strict=True)]
    return tables, sizes, mixing_rates(source, sizes)


def training_batches(
    source: Source,
    *,
    vocabulary: "seqio.Vocabulary | Callable[[], seqio.Vocabulary]",
    input_length: int,
    target_length: int,
    batch_size: int,
    prompt: features.PromptLayout = features.NO_PROMPT,
    seed: int = 0,
    start_step: int = 0,
    packed: bool = False,
    length_buckets: int = 1,
    num_choices: int = 0,
    shard: Shard = (0, 1),
    split: str = "train",
    ahead: int = 4,
) -> Prefetched:
    """Endless batches for training, made in a background thread; close them (or use them in `with`) when done.

    Args:
      source: where the examples come from.
      vocabulary: the SeqIO vocabulary, or a function that loads it in the background.
      input_length: most tokens of inputs, EOS included, prompt not counted.
      target_length: most tokens of targets, EOS included, prompt not counted.
      batch_size: rows of the whole batch; each shard gets batch_size / shards of them.
      prompt: see `features.PromptLayout`.
      seed: of order and mixing.
      start_step: begins with the batch of this step: the same as never interrupted.
      packed: whether a row may hold several examples.
      length_buckets: to how many lengths batches are padded (`data.length_buckets`); not where packed. Each shard then reads all examples.
      num_choices: where not 0, `choices.layout` lays out the examples, with as many answer choices each; not where packed.
      shard: `(index, shards)`, such as the process index and count. Without packing, the shards' batches of a step together are the batch
        of one shard.
      split: of every task.
      ahead: batches made ahead.

    Raises UserError, at the first batch, for an empty data set and whatever else the source finds wrong.
    """
    index, shards = shard
    if batch_size < 1 or batch_size % shards:
        raise UserError(
            f"batch_size: wanted a positive multiple of {shards} (the number of data shards), got {batch_size}; mend BATCH_SIZE"
        )
    if packed and length_buckets > 1:
        raise UserError("length_buckets: wanted None where rows are packed; set experiment.Experiment.packed = False")
    rows = batch_size // shards
    lazy_imports.keep_apart()

    def make() -> Iterator[features.Batch]:
        # Several streams begin in turn: the first imports TensorFlow, which two threads cannot do at once, and reads what all use.
        with _BEGINNING:
            batches = made()
            first = next(batches)
        yield first
        yield from batches

    def made() -> Iterator[features.Batch]:
        loaded = vocabulary() if callable(vocabulary) else vocabulary
        first_step = 0 if packed else start_step if length_buckets == 1 else buckets.window_of(start_step)
        examples = mixed_examples(
            source,
            vocabulary=loaded,
            seed=seed,
            split=split,
            shard=(index, shards) if length_buckets == 1 else (0, 1),
            skip=first_step * batch_size,
            input_length=input_length,
            target_length=target_length,
            with_choices=num_choices > 0,
        )
        if packed:
            groups = itertools.islice(
                features.pack(examples, prompt=prompt, input_length=input_length, target_length=target_length), start_step * rows, None
            )
            while True:
                yield features.layout_rows(
                    list(itertools.islice(groups, rows)), prompt=prompt, input_length=input_length, target_length=target_length
                )
        lay_out = functools.partial(choices.layout, num_choices=num_choices) if num_choices else features.layout
        lengths: Any = {"input_length": input_length, "target_length": target_length}
        if length_buckets > 1:
            settings: Any = {"start_step": start_step, "batch_size": batch_size, "seed": seed, "buckets": length_buckets, "prompt": prompt}
            for bucket, chosen in buckets.batches(examples, **settings, **lengths):
                yield lay_out(chosen[index::shards], prompt=prompt, **buckets.lengths(bucket, **lengths))
        while True:
            yield lay_out(list(itertools.islice(examples, rows)), prompt=prompt, **lengths)

    return Prefetched(make, ahead)


def with_split(tasks: Sequence[Any], split: str) -> list[Any]:
    """The tasks that have a split, in order; all of them where none has, so that reading one says what is missing."""
    return [task for task in tasks if split in task.splits] or list(tasks)


def _draws(seed: int, block: int, rates: np.ndarray) -> np.ndarray:
    """The tasks drawn for one block of positions."""
    return np.random.default_rng([number_of("draws"), seed, block]).choice(len(rates), size=_DRAWS_PER_BLOCK, p=rates)
