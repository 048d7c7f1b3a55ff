"""Says what a run would train, without training: each parameter, trained or frozen, its shape, dtype, bytes and where its value comes from.

    python -m prompt_tuning.inspect --gin_file=configs/models/t5_1_1_xxl.gin --gin_file=configs/methods/prompt.gin [--json]

No weight is read or made, so the largest models answer in seconds. A base checkpoint is compared by its index alone: an entry that fits
nothing and a parameter without an entry are errors here as they are in training. Neither data nor a checkpoint need be given.
"""

import argparse
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
    """A row for every parameter of the experiment's model with its method plugged in.

    Raises UserError for a pattern that matches nothing, an empty trainable set, and a base checkpoint that lacks a parameter, has one
    too many, or has one of another shape.
    """
    import jax
    from flax import nnx

    from prompt_tuning import interop, trainable
    from prompt_tuning.models.t5 import T5

    base = nnx.eval_shape(lambda: T5(experiment.model, nnx.Rngs(0)))
    names = [name for name, _ in trainable.named_variables(base)]
    if experiment.base_checkpoint is None:
        sources = dict.fromkeys(names, "initialiser: random (no BASE_CHECKPOINT)")
    else:
        sources = interop.describe_base(experiment.base_checkpoint, experiment.model, nnx.as_pure(nnx.state(base, nnx.Param)))

    def build() -> nnx.Module:
        model = T5(experiment.model, nnx.Rngs(0))
        sources.update(experiment.method.attach(model, jax.random.key(0), vocabulary=_LateVocabulary(experiment)))
        return model

    return trainable.audit(nnx.eval_shape(build), experiment.method.trainable, sources)


def as_json(rows: "tuple[Row, ...]") -> dict[str, Any]:
    """The audit as plain values."""
    from prompt_tuning import trainable

    trained, frozen = trainable.totals(rows)
    parameters = [
        {"name": row.name, "shape": list(row.shape), "dtype": row.dtype, "trained": row.trained, "source": row.source} for row in rows
    ]
    return {"trained_parameters": trained, "frozen_parameters": frozen, "parameters": parameters}


class _LateVocabulary:
    """Loads the vocabulary when an initialisation asks for it: most do not, and its file may not be at hand."""

    def __init__(self, experiment: "Experiment") -> None:
        self._settings = experiment.vocabulary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._settings.load(), name)


if __name__ == "__main__":
    main()
