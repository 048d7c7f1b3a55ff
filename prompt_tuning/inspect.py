"""Says what a run would train, without training: each parameter, trained or frozen, its shape, dtype, bytes and where its value comes from.

    python -m prompt_tuning.inspect --gin_file=configs/models/t5_1_1_xxl.gin --gin_file=configs/methods/prompt.gin [--json]

No weight is read or made, so the largest models answer in seconds. A base checkpoint is compared by its index alone: an entry that fits
nothing and a parameter without an entry are errors here as they are in training. Neither data nor a checkpoint need be given.
"""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli

if TYPE_CHECKING:
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.trainable import Row

# What training needs and this command does not.
_FALLBACKS = ("experiment.Experiment.data = None", "experiment.Experiment.allow_random_base = True")


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=_FALLBACKS, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    from prompt_tuning import trainable

    rows = audit(experiment)
    if flags.json:
        print(json.dumps(as_json(rows)))
    else:
        print(trainable.table(rows))


def audit(experiment: "Experiment") -> "tuple[Row, ...]":
    """A row for every parameter of the experiment's model with its method plugged in; see `assembly.audit`, which training shares.

    Raises UserError for a pattern that matches nothing, an empty trainable set, and a base checkpoint that lacks a parameter, has one
    too many, or has one of another shape.
    """
    from prompt_tuning import assembly

    return assembly.audit(without_vocabulary(experiment))


def without_vocabulary(experiment: "Experiment") -> "Experiment":
    """The experiment with a stand-in for a vocabulary whose file is not given."""
    if getattr(experiment.vocabulary, "path", "") is not None:
        return experiment
    return dataclasses.replace(experiment, vocabulary=_NoVocabulary(experiment.vocabulary, experiment.model.vocab_size))


def as_json(rows: "tuple[Row, ...]") -> dict[str, Any]:
    """The audit as plain values."""
    from prompt_tuning import trainable

    trained, frozen = trainable.totals(rows)
    parameters = [
        {"name": row.name, "shape": list(row.shape), "dtype": row.dtype, "trained": row.trained, "source": row.source} for row in rows
    ]
    return {"trained_parameters": trained, "frozen_parameters": frozen, "parameters": parameters}


@dataclasses.dataclass(frozen=True)
class _NoVocabulary:
    """Stands in where no vocabulary file is given: only an initialisation that reads one, as from class labels, then complains."""

    settings: Any
    vocab_size: int

    @property
    def delimiters(self) -> Any:
        from prompt_tuning.data.features import T5_DELIMITERS

        # Those of a tokenizer.json stand in the file; no parameter depends on them.
        return T5_DELIMITERS

    def load(self) -> Any:
        return self

    def encode(self, text: str) -> list[int]:
        return self.settings.load().encode(text)


if __name__ == "__main__":
    main()
