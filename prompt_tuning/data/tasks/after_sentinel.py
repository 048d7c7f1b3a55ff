"""Targets that begin with a sentinel, as those of span corruption do.

Paper: Lester et al. 2021 (arXiv:2104.08691), section 3.1 and figure 3(c), "span corruption + sentinel": a base that was pretrained on span
corruption alone has only ever written targets that begin with a sentinel, so each target of a downstream task gets one in front.
"""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from prompt_tuning.data import row_tasks
from prompt_tuning.data.mixtures import Source
from prompt_tuning.data.row_tasks import Read
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

# Scores over labels, which a word that stands before each of them does not change.
_OVER_LABELS = frozenset(("accuracy", "f1_macro", "f1_binary", "f1_over_answers", "group_exact_match", "matthews"))


@dataclasses.dataclass(frozen=True)
class AfterSentinel:
    """The tasks of a source with a sentinel before every target and answer choice.

    Attributes:
      source: whose tasks are scored over labels: where words are compared (ROUGE, SQuAD's F1), the sentinel would count as one.
      sentinel: a piece of the vocabulary.
    """

    source: Source
    sentinel: str = "<extra_id_0>"

    @property
    def task_names(self) -> tuple[str, ...]:
        """Those of the source."""
        return self.source.task_names

    @property
    def mixed(self) -> Source:
        """What it is mixed as."""
        return self.source

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[Any]:
        """The tasks; see `mixtures.Source`. Raises UserError for one that is not scored over labels, and for a vocabulary without it."""
        ids = list(vocabulary.encode(self.sentinel))
        if len(ids) != 1:
            raise UserError(f"AfterSentinel.sentinel: {self.sentinel!r} is {len(ids)} tokens of this vocabulary, wanted one")
        return [self._after(title, task, vocabulary) for title, task in zip(self.task_names, self.source.tasks(vocabulary), strict=True)]

    def _after(self, title: str, task: Any, vocabulary: "seqio.Vocabulary") -> Any:
        if not task.metric_names or not _OVER_LABELS.issuperset(task.metric_names):
            by = ", ".join(task.metric_names) or "its loss"
            raise UserError(f"AfterSentinel: task {title} is scored by {by}, wanted one scored over labels; leave it out")
        common: dict[str, Any] = {"settings": (self, task.name), "vocabulary": vocabulary, "metric_names": tuple(task.metric_names)}
        if getattr(task, "read", None) is not None:
            read = functools.partial(_rows, task.read, self.sentinel)
            on_disk = bool(getattr(task, "on_disk", False))
            return row_tasks.register(title, read=read, splits=tuple(task.splits), on_disk=on_disk, **common)
        return _seqio_task(title, task, self.sentinel, common)


def _rows(read: Read, sentinel: str, split: str) -> list[TextRow]:
    def begun(text: str) -> str:
        return f"{sentinel} {text}"

    return [
        dataclasses.replace(
            row,
            targets=begun(row.targets),
            answer_choices=tuple(map(begun, row.answer_choices)),
            references=tuple(map(begun, row.references)),
        )
        for row in read(split)
    ]


def _seqio_task(title: str, task: Any, sentinel: str, common: dict[str, Any]) -> Any:
    """A task of SeqIO with the sentinel put in before its texts are tokenized."""
    import seqio
    import tensorflow as tf

    from prompt_tuning.data import text_tasks

    @seqio.map_over_dataset
    def begun(row: dict[str, Any]) -> dict[str, Any]:
        told = (name for name in ("targets", *text_tasks.LIST_FIELDS) if name in row)
        return {**row, **{name: tf.strings.join([sentinel, row[name]], " ") for name in told}}

    made = list(task.preprocessors)
    head = made[: made.index(seqio.preprocessors.tokenize)]
    return text_tasks.register(title, source=lambda: task.source, preprocessors=[*head, begun], **common)
