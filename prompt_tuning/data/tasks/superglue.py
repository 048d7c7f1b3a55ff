"""The SuperGLUE tasks (Wang et al. 2019) from TFDS, in T5's text-to-text formats (Raffel et al. 2020, appendix D)."""

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from prompt_tuning.data.mixtures import Mixture
from prompt_tuning.data.tasks import glue
from prompt_tuning.data.tasks.glue import Format

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.text_tasks import TextTask

TFDS_VERSION = "1.0.2"
_TRUTH = ("False", "True")

# Fields come in alphabetical order where the released T5 code does not say otherwise.
FORMATS = {
    "boolq": Format(("passage", "question"), _TRUTH),
    "cb": Format(("hypothesis", "premise"), ("entailment", "contradiction", "neutral"), ("f1_macro", "accuracy")),
    "copa": Format(("choice1", "choice2", "premise", "question"), ("choice1", "choice2")),
    "multirc": Format(("question", "answer", "paragraph"), _TRUTH, ("f1_over_answers", "group_exact_match")),
    "record": Format(("query", "entities", "passage"), (), ("squad_f1", "exact_match")),
    "rte": Format(("hypothesis", "premise"), ("entailment", "not_entailment")),
    "wic": Format(("sentence1", "sentence2", "word"), _TRUTH),
    "wsc": Format(("text",), (), ("referent_accuracy",)),
}


@dataclasses.dataclass(frozen=True)
class SuperGlue:
    """One task of SuperGLUE.

    ReCoRD offers its entities as answer choices and accepts any of its answers; MultiRC is scored over answers and over whole questions;
    WSC asks for the noun and is scored by whether it names the candidate (see `tfds_tasks`).

    Attributes:
      name: boolq, cb, copa, multirc, record, rte, wic or wsc.
      task_prefix: whether the input begins with the task's name, as T5 was trained; False drops that word, as the released prompt-tuning
        tasks do.
      data_dir: the TFDS folder; None is TFDS's own, where data that is missing is downloaded.
      num_train: takes this many training rows, drawn with `seed`; None takes all.
      seed: of that draw.
    """

    name: str
    task_prefix: bool = True
    data_dir: str | None = None
    num_train: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        glue.check(self, FORMATS)

    @property
    def task_names(self) -> tuple[str, ...]:
        """`super_glue_` and the name."""
        return (f"super_glue_{self.name}",)

    def tasks(self, vocabulary: "seqio.Vocabulary") -> "list[TextTask]":
        """The SeqIO task; see `mixtures.Source`. Nothing is read or fetched before a split is asked for."""
        from prompt_tuning.data import tfds_tasks

        form = FORMATS[self.name]
        special: dict[str, Any] = {
            "multirc": functools.partial(tfds_tasks.multirc, choices=_TRUTH),
            "record": tfds_tasks.record,
            "wsc": tfds_tasks.wsc,
        }
        common = functools.partial(tfds_tasks.fields, benchmark=self.name, names=form.fields, choices=form.choices)
        config = "wsc.fixed" if self.name == "wsc" else self.name
        splits = {split: split for split in ("train", "validation", "test")}
        return [
            glue.task(
                self,
                vocabulary,
                f"super_glue/{config}:{TFDS_VERSION}",
                splits=splits,
                preprocess=special.get(self.name, common),
                metrics=form.metrics,
            )
        ]


def mixture(*, task_prefix: bool = True, data_dir: str | None = None, cap: int | None = None) -> Mixture:
    """All eight tasks as one, in proportion to their examples; arguments as of `SuperGlue` and `Mixture`."""
    return Mixture(tuple(SuperGlue(name, task_prefix=task_prefix, data_dir=data_dir) for name in FORMATS), cap=cap)
