"""The GLUE tasks (Wang et al. 2018) from TFDS, in T5's text-to-text formats (Raffel et al. 2020, appendix D)."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.text_tasks import TextTask

TFDS_VERSION = "2.0.0"


@dataclasses.dataclass(frozen=True)
class Format:
    """One GLUE task: the fields its input lists, its label words in TFDS's order, and its metrics, the main one first."""

    fields: tuple[str, ...]
    choices: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)


# Fields come in alphabetical order, as in the released T5 code.
_SENTENCES = ("sentence1", "sentence2")
FORMATS = {
    "cola": Format(("sentence",), ("unacceptable", "acceptable"), ("matthews", "accuracy")),
    "sst2": Format(("sentence",), ("negative", "positive")),
    "mrpc": Format(_SENTENCES, ("not_equivalent", "equivalent"), ("f1_binary", "accuracy")),
    "qqp": Format(("question1", "question2"), ("not_duplicate", "duplicate"), ("f1_binary", "accuracy")),
    "stsb": Format(_SENTENCES, (), ("pearson", "spearman")),
    "mnli": Format(("hypothesis", "premise"), ("entailment", "neutral", "contradiction")),
    "qnli": Format(("question", "sentence"), ("entailment", "not_entailment")),
    "rte": Format(_SENTENCES, ("entailment", "not_entailment")),
    "wnli": Format(_SENTENCES, ("not_entailment", "entailment")),
}


@dataclasses.dataclass(frozen=True)
class Glue:
    """One task of GLUE.

    Attributes:
      name: cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte or wnli.
      task_prefix: whether the input begins with the task's name, as T5 was trained; False drops that word, as the released prompt-tuning
        tasks do.
      data_dir: the TFDS folder; None is TFDS's own, where data that is missing is downloaded.
      num_train: takes this many training rows, drawn with `seed`; None takes all.
      seed: of that draw.

    The validation split of MNLI is the matched one; `validation_mismatched` is there too.
    """

    name: str
    task_prefix: bool = True
    data_dir: str | None = None
    num_train: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, FORMATS)

    @property
    def task_names(self) -> tuple[str, ...]:
        """`glue_` and the name."""
        return (f"glue_{self.name}",)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        """The SeqIO task; see `mixtures.Source`. Nothing is read or fetched before a split is asked for."""
        from prompt_tuning.data import tfds_tasks

        form = FORMATS[self.name]
        if self.name == "stsb":
            preprocess: Any = tfds_tasks.similarity
        else:
            preprocess = functools.partial(tfds_tasks.fields, benchmark=self.name, names=form.fields, choices=form.choices)
        splits = {"train": "train", "validation": "validation", "test": "test"}
        if self.name == "mnli":
            splits = {"train": "train"} | {
                f"{split}{kind}": f"{split}{kind or '_matched'}" for split in ("validation", "test") for kind in ("", "_mismatched")
            }
        return [task(self, vocabulary, f"glue/{self.name}:{TFDS_VERSION}", splits=splits, preprocess=preprocess, metrics=form.metrics)]


def check(settings: Any, formats: dict[str, Any]) -> None:
    """Raises UserError for a name that is no task of the collection, or a number of training rows below 1."""
    where = type(settings).__name__
    if settings.name not in formats:
        raise UserError(f"{where}.name: no task {settings.name!r}; wanted one of {', '.join(formats)}")
    if settings.num_train is not None and settings.num_train < 1:
        raise UserError(f"{where}.num_train: wanted at least 1 row, got {settings.num_train}")


def task(
    settings: Any, vocabulary: "seqio.Vocabulary", tfds_name: str, *, splits: dict[str, str], preprocess: Any, metrics: tuple[str, ...]
) -> "TextTask":
    """The SeqIO task over a TFDS data set, of settings with the fields of `Glue`."""
    from prompt_tuning.data import text_tasks, tfds_tasks

    return text_tasks.register(
        settings.task_names[0],
        settings=settings,
        vocabulary=vocabulary,
        source=lambda: tfds_tasks.TfdsSource(
            tfds_name, splits=splits, data_dir=settings.data_dir, num_train=settings.num_train, seed=settings.seed
        ),
        preprocessors=[preprocess] if settings.task_prefix else [preprocess, tfds_tasks.without_first_word],
        metric_names=metrics,
    )
