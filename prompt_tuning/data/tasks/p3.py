"""T0's mixtures (Sanh et al. 2021, arXiv:2110.08207) over rendered files of P3, one a template: `DATASET_TEMPLATE.jsonl`.

Each file is a task `DATASET/TEMPLATE`, so that evaluation is over templates and `prompt_tuning.summarise --by=template` gives median and
quartiles. The mixing rate of a task is its number of examples; a data set of more than 500,000 counts as 500,000, shared out among its
templates (section 5.2). Which data sets there are and what each mixture trains on: `p3_datasets.py`.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from prompt_tuning.data.instructions.rendered import Rendered
from prompt_tuning.data.provenance import Provenance
from prompt_tuning.data.tasks import p3_datasets
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.data.tasks.p3_datasets import Dataset
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

Part = Literal["training", "held_out"]
# Of files whose rows are written out, not ranked: what the data sets' own papers report.
_METRICS = {
    "closed_book_qa": ("exact_match", "squad_f1"),
    "extractive_qa": ("exact_match", "squad_f1"),
    "structure_to_text": ("rougeL", "rouge1", "rouge2"),
    "summarization": ("rougeL", "rouge1", "rouge2"),
}


@dataclasses.dataclass(frozen=True)
class P3:
    """One of T0's mixtures, or what it holds out.

    Attributes:
      train_files: paths or glob patterns of files `DATASET_TEMPLATE.jsonl`; those of other data sets are left out.
      validation_files: of validation splits, named like the training files: T0 chose its checkpoint on those of the training data sets.
      test_files: of test splits, named likewise.
      mixture: `t0`, `t0+` or `t0++`.
      part: `training`, the data sets that the mixture trains on; `held_out`, those of the paper's evaluation that it does not.
      cap: a data set with more examples counts as this many, shared out among its templates; None counts all.
      published_sizes: rates go by the published number of examples of each data set, whatever number of rows the files hold.
      num_templates: takes the first so many templates of each data set in the order of their names; None takes all.
      format: the names of the fields of a row.
      validation_frac: without validation files, the share of the training files' examples that is kept for validation.
      max_train: at most so many training examples of each template are read; None reads all.
      on_error: `raise`, or `skip`, which counts rows that are wrong and goes on.
      seed: of everything drawn.
    """

    train_files: tuple[str, ...] = ()
    validation_files: tuple[str, ...] = ()
    test_files: tuple[str, ...] = ()
    mixture: p3_datasets.Mixture = "t0"
    part: Part = "training"
    cap: int | None = p3_datasets.CAP
    published_sizes: bool = False
    num_templates: int | None = None
    format: Rendered = Rendered()
    validation_frac: float = 0.0
    max_train: int | None = None
    on_error: Literal["raise", "skip"] = "raise"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train_files", "validation_files", "test_files"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        for name, allowed in (("mixture", p3_datasets.MIXTURES), ("part", get_args(Part))):
            if getattr(self, name) not in allowed:
                raise UserError(f"P3.{name}: wanted one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("cap", "num_templates"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"P3.{name}: wanted at least 1, got {getattr(self, name)}")

    @property
    def task_names(self) -> tuple[str, ...]:
        """`DATASET/TEMPLATE` for each file."""
        return tuple(f"{dataset.name}/{template}" for dataset, template, _ in self._templates())

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Where the tasks are from: the data set of each, and which of the twelve tasks it is of."""
        return tuple(Provenance(dataset.task, (dataset.name,)) for dataset, _, _ in self._templates())

    def tasks(self, vocabulary: "seqio.Vocabulary") -> list[Any]:
        """The tasks; see `mixtures.Source`."""
        return [task for _, _, read in self._templates() for task in read.tasks(vocabulary)]

    def weights(self, sizes: Sequence[int | None]) -> list[float]:
        """The mixing rate of each task, not normalised (section 5.2).

        Args:
          sizes: the number of training examples of each; one of none weighs nothing.
        """
        groups: dict[Dataset, list[int]] = collections.defaultdict(list)
        for place, (dataset, _, _) in enumerate(self._templates()):
            groups[dataset].append(place)
        found = [0.0] * len(sizes)
        for dataset, places in groups.items():
            trained = [place for place in places if sizes[place]]
            for place in trained:
                # What a template drops is none of its rows: the fullest says how many the data set has.
                rows = dataset.rows if self.published_sizes else max(sizes[each] or 0 for each in trained)
                capped = self.cap is not None and rows > self.cap
                found[place] = (self.cap or 0) / len(trained) if capped else dataset.rows if self.published_sizes else sizes[place] or 0
        return found

    def _templates(self) -> list[tuple[Dataset, str, Instructions]]:
        """The templates of the part, sorted, each with the files it is read from.

        Raises UserError where files hold none.
        """
        every = Instructions(
            name="p3",
            format=self.format,
            train_files=self.train_files,
            validation_files=self.validation_files,
            test_files=self.test_files,
            by_file=True,
            max_train=self.max_train,
            on_error=self.on_error,
            seed=self.seed,
        )
        by_dataset: dict[Dataset, list[tuple[str, Instructions]]] = collections.defaultdict(list)
        for name, splits in sorted(every.paths().items()):
            told = p3_datasets.of_file(name.removeprefix("p3_"))
            if told is None or not self._has(told[0]):
                continue
            files: dict[str, Any] = {f"{split}_files": splits.get(split, ()) for split in ("train", "validation", "test")}
            frac = 0.0 if "validation" in splits or "train" not in splits else self.validation_frac
            metrics = _METRICS.get(told[0].task, ("accuracy", "rougeL"))
            read = dataclasses.replace(every, **files, validation_frac=frac, metrics=metrics)
            by_dataset[told[0]].append((told[1], read))
        found = [
            (dataset, template, read) for dataset, templates in by_dataset.items() for template, read in templates[: self.num_templates]
        ]
        if not found:
            raise UserError(
                f"P3: no file is of a data set of {self.mixture}, {self.part}; wanted DATASET_TEMPLATE.jsonl, as "
                f"{next(dataset.name for dataset in p3_datasets.DATASETS if self._has(dataset))}_NAME.jsonl; mend TRAIN_FILES or MIXTURE"
            )
        return found

    def _has(self, dataset: Dataset) -> bool:
        trained = dataset.trained_in(self.mixture)
        return trained if self.part == "training" else dataset.evaluated and not trained
