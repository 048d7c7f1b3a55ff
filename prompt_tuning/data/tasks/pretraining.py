"""Pretraining text: the passages of the task world, and text files, under T5's span corruption or a language-model objective."""

import dataclasses
import functools
import itertools
import pathlib
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.text_tasks import TextTask

_DOCUMENTS_JOINED = 256


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """An endless stream of pretraining examples.

    Attributes:
      objective: `span_corruption` (Raffel et al. 2020, section 3.1.4) or `prefix_lm`: a prefix of the text is read and the rest written
        (the LM adaptation of Lester et al. 2021, section 3.1).
      whole_documents: each document is an example of its own, cut to the length that fits; else documents are joined and cut into
        pieces that fill the input length exactly, as T5 does.
      document_separator: whether joined documents have EOS between them (T5 puts nothing there).
      noise_density: share of the tokens in noise spans.
      mean_span_tokens: mean length of a noise span.
      min_prefix_tokens: shortest prefix of the language-model objective.
      sentence_share: share of the language-model examples that are split after a sentence (`.`, `?` or `!`) rather than anywhere.
      sentence_draws: such a split is the latest of so many drawn evenly: more of them leave more to be read and less to be written.
      text_files: further text, documents parted by blank lines; a document of a file follows a passage of the world with chance
        `file_share`.
      file_share: share of documents that come from the text files.
      seed: of the passages. The validation split has other passages, drawn from another seed.
    """

    objective: Literal["span_corruption", "prefix_lm"] = "span_corruption"
    whole_documents: bool = False
    document_separator: bool = False
    noise_density: float = 0.15
    mean_span_tokens: float = 3.0
    min_prefix_tokens: int = 1
    sentence_share: float = 0.0
    sentence_draws: int = 1
    text_files: tuple[str, ...] = ()
    file_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "text_files", tuple(self.text_files or ()))
        if self.objective not in ("span_corruption", "prefix_lm"):
            raise UserError(f"Pretraining.objective: wanted 'span_corruption' or 'prefix_lm', got {self.objective!r}")
        if not 0 < self.noise_density < 1 or self.mean_span_tokens < 1:
            raise UserError(
                f"Pretraining: wanted 0 < noise_density < 1 and mean_span_tokens >= 1, got {self.noise_density}, {self.mean_span_tokens}"
            )
        if not 0 <= self.sentence_share <= 1 or self.sentence_draws < 1:
            raise UserError(
                "Pretraining: wanted 0 <= sentence_share <= 1 and sentence_draws >= 1, "
                f"got {self.sentence_share}, {self.sentence_draws}; set them in the gin file"
            )

    @property
    def task_names(self) -> tuple[str, ...]:
        """`world_pretraining` for span corruption, `world_lm` for the language-model objective."""
        return ("world_pretraining" if self.objective == "span_corruption" else "world_lm",)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        """The SeqIO task; see `mixtures.Source`. Its pipelines need sequence lengths."""
        import seqio

        from prompt_tuning.data import text_tasks

        return [
            text_tasks.register(
                self.task_names[0],
                settings=self,
                vocabulary=vocabulary,
                source=functools.partial(_source, self),
                preprocessors=[
                    _tokenized,
                    functools.partial(_objective, settings=self),
                    seqio.preprocessors.append_eos,
                ],
                metric_names=(),
                streaming=True,
                tokenize=False,
            )
        ]


def documents(settings: Pretraining, split: str) -> Iterator[str]:
    """The endless documents of a split. Raises UserError for a text file that is missing or empty."""
    from prompt_tuning.data.world import corpus

    passages = corpus.documents("train" if split == "train" else "validation", seed=settings.seed)
    if not settings.text_files:
        return passages
    texts = itertools.chain.from_iterable(map(_file_documents, settings.text_files))
    # One document of twenty is kept for validation.
    kept = [text for place, text in enumerate(texts) if (place % 20 == 7) == (split != "train")]
    if not kept:
        raise UserError(f"Pretraining.text_files: no document for split {split!r} in {list(settings.text_files)}; part them by blank lines")
    return _mixed(passages, kept, settings, split)


def _mixed(passages: Iterator[str], texts: list[str], settings: Pretraining, split: str) -> Iterator[str]:
    rng = random.Random(f"pretraining/{settings.seed}/{split}")
    while True:
        yield rng.choice(texts) if rng.random() < settings.file_share else next(passages)


def _file_documents(path: str) -> list[str]:
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Pretraining.text_files: cannot read {path}: {error}; wanted a UTF-8 text file") from error
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _batches(texts: Iterator[str]) -> Iterator[dict[str, list[str]]]:
    while True:
        yield {"targets": list(itertools.islice(texts, _DOCUMENTS_JOINED))}


def _source(settings: Pretraining) -> "seqio.DataSource":
    import seqio
    import tensorflow as tf

    def dataset_fn(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        del shuffle_files, seed
        documents(settings, split)  # What is wrong with the files is found here and not in TensorFlow's thread.
        # In batches, for an element from Python costs TensorFlow 100 us.
        signature = {"targets": tf.TensorSpec([_DOCUMENTS_JOINED], tf.string)}
        return tf.data.Dataset.from_generator(lambda: _batches(documents(settings, split)), output_signature=signature)

    return seqio.FunctionDataSource(dataset_fn, splits=("train", "validation"))


def _tokenized(dataset: Any, output_features: "dict[str, seqio.Feature]") -> Any:
    """The dataset with batches of documents as ragged token ids. SeqIO's byte vocabulary takes no batch of unequal strings: it goes by
    bytes."""
    import seqio
    import tensorflow as tf

    vocabulary = output_features["targets"].vocabulary
    if not isinstance(vocabulary, seqio.ByteVocabulary):
        return seqio.preprocessors.tokenize(dataset, output_features=output_features, copy_pretokenized=False)

    def ids(example: dict[str, Any]) -> dict[str, Any]:
        split = tf.strings.bytes_split(example["targets"])
        return {"targets": split.with_flat_values(vocabulary.encode_tf(split.flat_values)[:, 0])}

    return dataset.map(ids, num_parallel_calls=tf.data.AUTOTUNE)


def _objective(
    dataset: Any, output_features: "dict[str, seqio.Feature]", sequence_length: dict[str, int] | None = None, *, settings: Pretraining
) -> Any:
    """The dataset of tokenized texts under the objective, filling `sequence_length`."""
    from prompt_tuning.data import objectives

    assert sequence_length is not None, "pretraining pipelines need sequence lengths"
    eos_id = output_features["targets"].vocabulary.eos_id
    input_length, target_length = sequence_length["inputs"], sequence_length["targets"]
    noise = {"noise_density": settings.noise_density, "mean_span_tokens": settings.mean_span_tokens}
    if settings.objective == "span_corruption":
        tokens, needed = objectives.span_corruption_lengths(input_length, **noise)
        if needed > target_length:
            raise UserError(
                f"span corruption of {input_length} input tokens writes {needed} target tokens, got {target_length}; raise TARGET_LENGTH"
            )
    else:
        tokens = input_length + target_length - 2
    if settings.whole_documents:
        dataset = objectives.one_by_one(dataset, tokens=tokens)
    else:
        dataset = objectives.join_and_split(dataset, tokens=tokens, separator=eos_id if settings.document_separator else None)
    if settings.objective == "span_corruption":
        return objectives.span_corruption(dataset, output_features=output_features, **noise)
    vocabulary = output_features["targets"].vocabulary
    return objectives.prefix_language_model(
        dataset,
        min_prefix_tokens=settings.min_prefix_tokens,
        max_prefix_tokens=input_length - 1,
        max_continuation_tokens=target_length - 1,
        # A mark is the last token of a word that it ends.
        sentence_end_ids=tuple(int(vocabulary.encode(f"a{mark}")[-1]) for mark in ".?!"),
        sentence_share=settings.sentence_share,
        sentence_draws=settings.sentence_draws,
    )
