"""Tasks over rows that Python reads: their texts are tokenized here, many at once, and SeqIO is asked only by who wants a SeqIO task.

Ids and texts are those that the same task gives in SeqIO (`RowTask.seqio`, which everything else of a task is read from).
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from prompt_tuning.data import plain_vocabularies, vocabularies
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning.data.text_tasks import TextTask

Read = Callable[[str], Sequence[TextRow]]
_KNOWN: dict[str, "RowTask"] = {}


class RowTask:
    """A task over rows of text.

    Attributes:
      title: the name in reports.
      name: title and a hash of settings and vocabulary, as SeqIO knows it.
      settings: what decides its content.
      vocabulary: of inputs and targets.
      read: the rows of a split.
      splits: their names.
      metric_names: names in `prompt_tuning.data.metrics`; the first is the main one.
      on_disk: whether its tokens are kept for the next process (`token_cache`).
      streaming: False: rows end.
    """

    streaming = False

    def __init__(
        self,
        title: str,
        *,
        name: str,
        settings: Any,
        vocabulary: Any,
        read: Read,
        splits: Sequence[str],
        metric_names: Sequence[str],
        on_disk: bool,
    ) -> None:
        self.title, self.name, self.settings, self.vocabulary = title, name, settings, vocabulary
        self.read, self.splits, self.metric_names, self.on_disk = read, tuple(splits), tuple(metric_names), on_disk

    @functools.cached_property
    def seqio(self) -> "TextTask":
        """The same as a SeqIO task, registered under its name."""
        from prompt_tuning.data import text_tasks

        return text_tasks.register(
            self.title,
            settings=self.settings,
            vocabulary=self.vocabulary,
            source=functools.partial(text_tasks.rows_source, self.read, self.splits),
            metric_names=self.metric_names,
        )

    def __getattr__(self, name: str) -> Any:
        # `get_dataset`, `output_features` and the like. What copies and pickles ask for is no task's.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.seqio, name)


def register(
    title: str,
    *,
    settings: Any,
    vocabulary: Any,
    read: Read,
    splits: Sequence[str],
    metric_names: Sequence[str] = (),
    on_disk: bool = False,
) -> RowTask:
    """The task of these settings, the same one on every call.

    Args:
      title: letters, digits and underscores; the name in reports.
      settings: what decides the content: anything whose repr says it in full.
      vocabulary: of inputs and targets.
      read: gives the rows of a split.
      splits: names of the splits.
      metric_names: see `RowTask`.
      on_disk: see `RowTask`; only where settings, the files they name and code decide the rows, and nothing else.
    """
    name = registered_name(title, settings, tuple(metric_names), False, vocabulary)
    if name not in _KNOWN:
        _KNOWN[name] = RowTask(
            title,
            name=name,
            settings=settings,
            vocabulary=vocabulary,
            read=read,
            splits=splits,
            metric_names=metric_names,
            on_disk=on_disk,
        )
    return _KNOWN[name]


def registered_name(title: str, settings: Any, metric_names: tuple[str, ...], streaming: bool, vocabulary: Any) -> str:
    """The title and a hash of what decides the content of a task."""
    content = repr((title, settings, metric_names, streaming, vocabulary_key(vocabulary)))
    return f"{title}_{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def vocabulary_key(vocabulary: Any) -> tuple[str, int, str, vocabularies.Delimiters]:
    """What tells a vocabulary apart: its class in SeqIO, size, content and delimiters."""
    kind = vocabulary.kind if isinstance(vocabulary, plain_vocabularies.Plain) else type(vocabulary).__name__
    model = getattr(vocabulary, "sp_model", None) or b""
    return kind, int(vocabulary.vocab_size), hashlib.sha256(model).hexdigest(), vocabularies.delimiters(vocabulary)


def check_split(task: Any, split: str) -> None:
    """Raises UserError, naming those that are there, where a task has no such split."""
    if split not in task.splits:
        there = ", ".join(map(str, task.splits))
        title = getattr(task, "title", task.name)
        raise UserError(f"task {title} has no split {split!r}; it has {there}; give files for it, or name one of these")


def token_ids(vocabulary: Any, texts: Sequence[str], *, end: bool) -> tuple[np.ndarray, np.ndarray]:
    """The ids of many texts end to end, int32, with EOS behind each where `end`; and where each begins, then where the last ends, int64."""
    rows = plain_vocabularies.encode_many(vocabulary, texts)
    splits = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rows), np.int64, len(rows)) + end, out=splits[1:])
    ids = np.full(splits[-1], vocabulary.eos_id, np.int32)
    kept = np.ones(len(ids), bool)
    if end:
        kept[splits[1:] - 1] = False
    if rows:
        ids[kept] = np.concatenate([np.asarray(row, np.int32) for row in rows])
    return ids, splits


def examples(task: Any, split: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """The first examples of a task with `read` as SeqIO gives them with texts (`text_tasks.as_example`), in order."""
    check_split(task, split)
    rows = task.read(split)[:limit]
    ends = ends_of(task.vocabulary)
    tokens = {name: token_ids(task.vocabulary, [getattr(row, name) for row in rows], end=end) for name, end in ends.items()}
    spans = any(row.loss_spans for row in rows)
    for place, row in enumerate(rows):
        example: dict[str, Any] = {}
        for name, (ids, splits) in tokens.items():
            example |= {f"{name}_pretokenized": getattr(row, name), name: ids[splits[place] : splits[place + 1]]}
        example |= {"group": row.group, "answer_choices": row.answer_choices or None, "references": row.references or None}
        yield example | {"loss_spans": np.array(row.loss_spans, np.int32).reshape(-1, 2)} if spans else example


def ends_of(vocabulary: Any) -> dict[str, bool]:
    """Whether inputs and targets end with EOS."""
    return {"inputs": vocabularies.delimiters(vocabulary).inputs_end, "targets": True}
