"""SeqIO tasks over rows of text; imports TensorFlow and SeqIO, so import it late.

A text task reads rows with `inputs` and `targets` and gives them tokenized with EOS appended after trimming
(`seqio.preprocessors.append_eos_after_trim`; to inputs only where the vocabulary has them end so); the pipelines of this package ask for no
trimming here and trim when they lay out a batch.
For evaluation a row keeps its texts (`inputs_pretokenized`, `targets_pretokenized`) and may carry `answer_choices`, `references` (every
accepted answer), `group` (a tag that some metrics read: rows of one question, say) and `loss_spans` (see `rows.TextRow`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import metrics
from prompt_tuning.data.plain_vocabularies import as_seqio
from prompt_tuning.data.row_tasks import Read, ends_of, registered_name

LIST_FIELDS = ("answer_choices", "references")


class TextTask(seqio.Task):
    """A SeqIO task that also knows the name people call it by, the names of its metrics, and whether it ends.

    Attributes:
      title: the name in reports.
      metric_names: names in `prompt_tuning.data.metrics`; the first is the main one.
      streaming: whether its examples come without end.
      settings: what decides its content.
      vocabulary: of inputs and targets.
      read: gives the rows of a split, where all that is done with rows of Python is to tokenize them; else None.
    """

    def __init__(
        self,
        name: str,
        *,
        title: str,
        metric_names: tuple[str, ...],
        streaming: bool = False,
        settings: Any = None,
        vocabulary: Any = None,
        read: Read | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(name, **fields)
        self.title = title
        self.metric_names = metric_names
        self.streaming = streaming
        self.settings, self.vocabulary, self.read = settings, vocabulary, read


class RowsSource(seqio.FunctionDataSource):
    """A source over rows that Python reads.

    Attributes:
      read: gives the rows of a split.
    """

    def __init__(self, read: Read, splits: Sequence[str]) -> None:
        super().__init__(self._rows, splits=splits)
        self.read = read

    def _rows(self, split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        rows = self.read(split)
        columns: dict[str, Any] = {
            name: tf.constant([getattr(row, name) for row in rows], tf.string) for name in ("inputs", "targets", "group")
        }
        for name in LIST_FIELDS:
            columns[name] = tf.ragged.constant([getattr(row, name) for row in rows], tf.string, ragged_rank=1)
        if any(row.loss_spans for row in rows):
            columns["loss_spans"] = tf.ragged.constant([row.loss_spans for row in rows], tf.int32, ragged_rank=1, inner_shape=(2,))
        return tf.data.Dataset.from_tensor_slices(columns)


def rows_source(read: Read, splits: Sequence[str]) -> seqio.DataSource:
    """A SeqIO source over rows that Python reads; `read(split)` is called when the split is asked for."""
    return RowsSource(read, splits)


def register(
    title: str,
    *,
    settings: Any,
    vocabulary: Any,
    source: Callable[[], seqio.DataSource],
    preprocessors: Sequence[Callable[..., tf.data.Dataset]] = (),
    metric_names: tuple[str, ...] = (),
    streaming: bool = False,
    tokenize: bool = True,
) -> TextTask:
    """The task of these settings, registered with SeqIO on the first call under `title` and a hash of settings and vocabulary.

    Args:
      title: letters, digits and underscores; the name in reports.
      settings: what decides the content: anything whose repr says it in full.
      vocabulary: of inputs and targets.
      source: makes the SeqIO source.
      preprocessors: from the rows of the source to `inputs` and `targets` as text.
      metric_names: see `TextTask`.
      streaming: see `TextTask`.
      tokenize: whether to tokenize and append EOS after the preprocessors; else they do it themselves.
    """
    name = registered_name(title, settings, metric_names, streaming, vocabulary)
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    inside = as_seqio(vocabulary)
    # What is tokenized can be cached (`prepared`); where it is cut and ends depends on the lengths.
    cached = (seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder(), seqio.preprocessors.append_eos_after_trim)
    tail = cached if tokenize else ()
    made = source()
    return seqio.TaskRegistry.add(
        name,
        source=made,
        preprocessors=[*preprocessors, *tail],
        output_features={key: seqio.Feature(inside, add_eos=end, dtype=tf.int32) for key, end in ends_of(vocabulary).items()},
        metric_fns=[metrics.seqio_metric(metric) for metric in metric_names],
        task_cls=TextTask,
        title=title,
        metric_names=metric_names,
        streaming=streaming,
        settings=settings,
        vocabulary=vocabulary,
        read=made.read if isinstance(made, RowsSource) and tokenize and not preprocessors else None,
    )


def as_example(features: Mapping[str, Any]) -> dict[str, Any]:
    """An element of a task, as NumPy gives it, as an Example: strings decoded, empty `answer_choices` and `references` None."""
    example: dict[str, Any] = {}
    for key, value in features.items():
        if key in LIST_FIELDS:
            example[key] = tuple(entry.decode() for entry in value) or None
        elif isinstance(value, bytes):
            example[key] = value.decode()
        else:
            example[key] = value
    return example
