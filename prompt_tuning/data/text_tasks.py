"""SeqIO tasks over rows of text; imports TensorFlow and SeqIO, so import it late.

A text task reads rows with `inputs` and `targets` and gives them tokenized with EOS appended after trimming
(`seqio.preprocessors.append_eos_after_trim`; to inputs only where the vocabulary has them end so); the pipelines of this package ask for no
trimming here and trim when they lay out a batch.
For evaluation a row keeps its texts (`inputs_pretokenized`, `targets_pretokenized`) and may carry `answer_choices`, `references` (every
accepted answer), `group` (a tag that some metrics read: rows of one question, say) and `loss_spans` (see `rows.TextRow`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import seqio
import tensorflow as tf

from prompt_tuning.data import metrics, vocabularies
from prompt_tuning.data.rows import TextRow

LIST_FIELDS = ("answer_choices", "references")


class TextTask(seqio.Task):
    """A SeqIO task that also knows the name people call it by, the names of its metrics, and whether it ends.

    Attributes:
      title: the name in reports.
      metric_names: names in `prompt_tuning.data.metrics`; the first is the main one.
      streaming: whether its examples come without end.
    """

    def __init__(self, name: str, *, title: str, metric_names: tuple[str, ...], streaming: bool = False, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.title = title
        self.metric_names = metric_names
        self.streaming = streaming


def rows_source(read: Callable[[str], Sequence[TextRow]], splits: Sequence[str]) -> seqio.FunctionDataSource:
    """A SeqIO source over rows that Python reads; `read(split)` is called when the split is asked for."""

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        rows = read(split)
        columns: dict[str, Any] = {
            name: tf.constant([getattr(row, name) for row in rows], tf.string) for name in ("inputs", "targets", "group")
        }
        for name in LIST_FIELDS:
            columns[name] = tf.ragged.constant([getattr(row, name) for row in rows], tf.string, ragged_rank=1)
        if any(row.loss_spans for row in rows):
            columns["loss_spans"] = tf.ragged.constant([row.loss_spans for row in rows], tf.int32, ragged_rank=1, inner_shape=(2,))
        return tf.data.Dataset.from_tensor_slices(columns)

    return seqio.FunctionDataSource(dataset_fn, splits=splits)


def register(
    title: str,
    *,
    settings: Any,
    vocabulary: seqio.Vocabulary,
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
    content = repr((title, settings, metric_names, streaming, vocabulary_key(vocabulary)))
    name = f"{title}_{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if name in seqio.TaskRegistry.names():
        return seqio.TaskRegistry.get(name)
    ends = {"inputs": vocabularies.delimiters(vocabulary).inputs_end, "targets": True}
    tail = (seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim) if tokenize else ()
    return seqio.TaskRegistry.add(
        name,
        source=source(),
        preprocessors=[*preprocessors, *tail],
        output_features={key: seqio.Feature(vocabulary, add_eos=end, dtype=tf.int32) for key, end in ends.items()},
        metric_fns=[metrics.seqio_metric(metric) for metric in metric_names],
        task_cls=TextTask,
        title=title,
        metric_names=metric_names,
        streaming=streaming,
    )


def vocabulary_key(vocabulary: seqio.Vocabulary) -> tuple[str, int, str, vocabularies.Delimiters]:
    """What tells a vocabulary apart: its class, size, content and delimiters."""
    model = getattr(vocabulary, "sp_model", None) or b""
    return type(vocabulary).__name__, int(vocabulary.vocab_size), hashlib.sha256(model).hexdigest(), vocabularies.delimiters(vocabulary)


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
