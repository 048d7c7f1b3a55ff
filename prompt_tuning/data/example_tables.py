"""Finite tasks as tables of token ids, tokenized once."""

import dataclasses
import functools
import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_tuning.data import choices, features, loss_masks, row_tasks, token_cache
from prompt_tuning.data.choices import Choices
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

_TABLES_KEPT = 64


@dataclasses.dataclass(frozen=True)
class ExampleTable:
    """The token ids of a finite task: row i of `inputs` is ids[splits[i] : splits[i + 1]], of `targets` likewise; its answer `choices`.

    `target_masks` stand beside `target_ids`: whether the loss is on each; None: on all.
    """

    input_ids: np.ndarray
    input_splits: np.ndarray
    target_ids: np.ndarray
    target_splits: np.ndarray
    choices: tuple[Choices, ...] | None = None
    target_masks: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays, to be kept."""
        names = ("input_ids", "input_splits", "target_ids", "target_splits", "target_masks")
        found = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.choices is not None:
            every = [choice for own in self.choices for choice in own]
            found["choice_ids"] = np.array([token for choice in every for token in choice], np.int32)
            found["choice_lengths"] = np.array([len(choice) for choice in every], np.int32)
            found["choice_counts"] = np.array([len(own) for own in self.choices], np.int32)
        return found

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> "ExampleTable":
        """The table of its arrays."""
        fields: dict[str, Any] = {name: value for name, value in arrays.items() if not name.startswith("choice_")}
        if "choice_ids" not in arrays:
            return cls(**fields)
        ids, lengths = iter(arrays["choice_ids"].tolist()), iter(arrays["choice_lengths"].tolist())
        known: dict[Choices, Choices] = {}
        rows = []
        for count in arrays["choice_counts"].tolist():
            own = tuple(tuple(itertools.islice(ids, next(lengths))) for _ in range(count))
            rows.append(known.setdefault(own, own))
        return cls(**fields, choices=tuple(rows))

    def __len__(self) -> int:
        return len(self.input_splits) - 1

    def __getitem__(self, row: int) -> features.Example:
        targets = slice(self.target_splits[row], self.target_splits[row + 1])
        example: features.Example = {
            "inputs": self.input_ids[self.input_splits[row] : self.input_splits[row + 1]],
            "targets": self.target_ids[targets],
        }
        if self.choices is not None:
            example = {**example, "choices": self.choices[row]}
        return example if self.target_masks is None else {**example, "loss_mask": self.target_masks[targets]}


class Shuffled:
    """A table in its shuffled order, epoch after epoch; keeps the order of the epoch last read."""

    def __init__(self, table: ExampleTable, name: str, seed: int) -> None:
        self._table, self._key = table, (number_of(name), seed)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def __getitem__(self, position: int) -> features.Example:
        epoch, place = divmod(position, len(self._table))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([*self._key, epoch]).permutation(len(self._table))
        return self._table[int(self._order[place])]


@functools.lru_cache(maxsize=_TABLES_KEPT)
def example_table(task: "seqio.Task", split: str, with_choices: bool = False) -> ExampleTable:
    """All examples of a task's split, tokenized, EOS appended, not trimmed; kept for the next run of the process.

    A task over rows of Python (one with `read`) is tokenized without SeqIO. The table of one that is `on_disk` is kept for the next process
    too (`token_cache`).

    Raises UserError, naming both, when there is none, and where `with_choices` for a target that is none of its choices.
    """
    row_tasks.check_split(task, split)
    make = _of_rows if getattr(task, "read", None) is not None else _through_seqio
    what = f"{split}, with choices" if with_choices else split
    return ExampleTable.of_arrays(token_cache.kept(task, what, lambda: make(task, split, with_choices).arrays()))


def _of_rows(task: Any, split: str, with_choices: bool) -> ExampleTable:
    rows = task.read(split)
    if not rows:
        raise no_example(task, split)
    ends, vocabulary = row_tasks.ends_of(task.vocabulary), task.vocabulary
    input_ids, input_splits = row_tasks.token_ids(vocabulary, [row.inputs for row in rows], end=ends["inputs"])
    target_ids, target_splits = row_tasks.token_ids(vocabulary, [row.targets for row in rows], end=ends["targets"])
    found = masks = None
    if with_choices:
        read = choices.Reader(vocabulary, title=title_of(task))
        ids = target_ids.tolist()
        bounds = target_splits.tolist()
        found = tuple(read(place, row.answer_choices, ids[bounds[place] : bounds[place + 1]]) for place, row in enumerate(rows))
    if any(row.loss_spans for row in rows):
        told = ((row.targets, row.loss_spans, count) for row, count in zip(rows, np.diff(target_splits).tolist(), strict=True))
        masks = loss_masks.of_rows(vocabulary, told, title=title_of(task))
    return ExampleTable(input_ids, input_splits, target_ids, target_splits, found, masks)


def _through_seqio(task: "seqio.Task", split: str, with_choices: bool) -> ExampleTable:
    def tokens(example: dict[str, Any]) -> dict[str, Any]:
        return {"inputs": example["inputs"], "targets": example["targets"]}

    dataset = dataset_of(task, split)
    ids: dict[str, list[np.ndarray]] = {"inputs": [], "targets": []}
    lengths: dict[str, list[np.ndarray]] = {"inputs": [np.zeros(1, np.int64)], "targets": [np.zeros(1, np.int64)]}
    for chunk in dataset.map(tokens).ragged_batch(1024):
        for key in ids:
            ids[key].append(chunk[key].flat_values.numpy())
            lengths[key].append(chunk[key].row_lengths().numpy())
    if not ids["inputs"]:
        raise no_example(task, split)
    whole = {key: np.concatenate(parts) for key, parts in ids.items()}
    splits = {key: np.cumsum(np.concatenate(parts)) for key, parts in lengths.items()}
    found = None
    if with_choices:
        read = choices.Reader(task.output_features["targets"].vocabulary, title=title_of(task))
        found = tuple(
            read(row, [text.decode() for text in element.get("answer_choices", ())], element["targets"])
            for row, element in enumerate(dataset.as_numpy_iterator())
        )
    masks = None
    if "loss_spans" in dataset.element_spec:
        told = (
            (each["targets_pretokenized"].decode(), each["loss_spans"].tolist(), len(each["targets"]))
            for each in dataset.as_numpy_iterator()
        )
        masks = loss_masks.of_rows(task.output_features["targets"].vocabulary, told, title=title_of(task))
    return ExampleTable(whole["inputs"], splits["inputs"], whole["targets"], splits["targets"], found, masks)


def no_example(task: Any, split: str) -> UserError:
    """What is raised for a task's split that is empty."""
    return UserError(f"task {title_of(task)}: split {split!r} holds no example; check the files or the settings it is read from")


def title_of(task: "seqio.Task") -> str:
    """What a task is called in reports and errors."""
    return str(getattr(task, "title", task.name))


def dataset_of(
    task: "seqio.Task",
    split: str,
    *,
    lengths: dict[str, int] | None = None,
    seed: int | None = None,
    limit: int | None = None,
    epochs: int | None = 1,
) -> Any:
    """A task's split as SeqIO gives it, in its own order. Raises UserError where the task has no such split."""
    row_tasks.check_split(task, split)
    dataset = task.get_dataset(
        lengths, split=split, shuffle=False, seed=seed, num_epochs=epochs, trim_output_features=lengths is not None, try_in_mem_cache=False
    )
    return dataset if limit is None else dataset.take(limit)


def number_of(name: str) -> int:
    """A number that stands for a name in the seeds of its random draws, the same on any machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
