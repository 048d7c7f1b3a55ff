"""Says which evaluation examples a mixture's training data holds already, and fails where there are any.

    python -m prompt_tuning.contamination --gin_file=configs/data/instructions.gin --gin.TRAIN_FILES='["data/*.jsonl"]' \
      [--split=test] [--allow=TASK ...] [--ngram=13] [--output=overlaps.jsonl] [--json]

The evaluation set is the configuration's (evaluation_data where it has some, else its data), on --split; it is compared with the training
split of the data. `prompt_tuning/data/overlap.py` says what an overlap is. Memory grows with the evaluation set; training text streams by.
Prints a table, or one JSON object; --output gets a line for each overlap, with both texts. Ends with status 2 where a task that
--allow does not name has an overlap.
"""

import argparse
import collections
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, text_tables
from prompt_tuning.errors import UserError
from prompt_tuning.evaluate import FALLBACKS

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.overlap import Overlap, Text
    from prompt_tuning.data.text_tasks import TextTask
    from prompt_tuning.experiment import Experiment

# No model is run: any will do where none is given.
ANY_MODEL = (
    "from prompt_tuning.data import vocabularies",
    "from prompt_tuning.models import t5",
    "experiment.Experiment.model = @t5.T5Config()",
    "experiment.Experiment.vocabulary = @vocabularies.Bytes()",
    "experiment.Experiment.allow_random_base = True",
)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=FALLBACKS + ANY_MODEL, argv=argv)


def _flags(parser: argparse.ArgumentParser) -> None:
    from prompt_tuning.data.overlap import Search

    parser.add_argument("--split", help="of the evaluation set: train, validation or test (default: the configuration's, validation)")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="TASK", help="an evaluation task that may overlap; as often as needed"
    )
    for field in dataclasses.fields(Search):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=f"(default {field.default})")
    parser.add_argument("--output", help="a .jsonl file for the overlaps themselves")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    import tqdm

    from prompt_tuning import files
    from prompt_tuning.data import mixtures
    from prompt_tuning.data.overlap import Search

    search = Search(**{field.name: getattr(flags, field.name) for field in dataclasses.fields(Search)})
    vocabulary = experiment.vocabulary.load()
    split = flags.split or experiment.evaluation.split
    evaluated = mixtures.with_split((experiment.evaluation_data or experiment.data).tasks(vocabulary), split)
    names = [task.title for task in evaluated]
    if unknown := sorted(set(flags.allow) - set(names)):
        raise UserError(f"--allow={unknown[0]}: no such evaluation task; wanted one of {', '.join(names)}")
    evaluation = [text for task in evaluated for text in texts(task, split)]
    trained = mixtures.with_split(experiment.data.tasks(vocabulary), "train")
    training = (text for task in trained for text in texts(task, "train"))
    overlaps = search.overlaps(evaluation, tqdm.tqdm(training, desc="training data", unit=" examples", disable=None))
    if flags.output:
        lines = "".join(json.dumps(dataclasses.asdict(overlap), ensure_ascii=False) + "\n" for overlap in overlaps)
        files.atomic_write(flags.output, lines.encode())
        print(f"wrote {len(overlaps)} overlaps to {flags.output}", file=sys.stderr)
    counts = counted(evaluation, overlaps)
    print(json.dumps({"split": split, "tasks": counts}) if flags.json else table(counts))
    wrong = {name: each["overlapping"] for name, each in counts.items() if each["overlapping"] and name not in flags.allow}
    if wrong:
        listed = ", ".join(f"{name} ({count} of {counts[name]['examples']})" for name, count in wrong.items())
        allowed = " ".join(f"--allow={name}" for name in wrong)
        look = "" if flags.output else ", see them with --output=FILE"
        raise UserError(
            f"training data holds examples of the {split} split of {listed}; leave them out of training{look}, or add {allowed}"
        )


def texts(task: "TextTask", split: str) -> "Iterator[Text]":
    """The examples of a task's split as text, one at a time; what a task without texts would have said is read back from its tokens."""
    from prompt_tuning.data import mixtures
    from prompt_tuning.data.overlap import Text

    for index, example in enumerate(mixtures.elements(task, split)):
        yield Text(task.title, index, _said(task, example, "inputs"), _said(task, example, "targets"))


def _said(task: "seqio.Task", example: dict[str, Any], name: str) -> str:
    text = example.get(f"{name}_pretokenized")
    return task.output_features[name].vocabulary.decode(example[name].tolist()) if text is None else text


def counted(evaluation: "Sequence[Text]", overlaps: "Sequence[Overlap]") -> dict[str, dict[str, int]]:
    """Numbers of each evaluation task: `examples`, those `overlapping`, and of those the `same`, `near` and `shared`."""
    examples = collections.Counter(text.task for text in evaluation)
    kinds = collections.Counter((overlap.task, overlap.kind) for overlap in overlaps)
    found = {name: {kind: kinds[name, kind] for kind in ("same", "near", "shared")} for name in examples}
    return {name: {"examples": examples[name], "overlapping": sum(each.values())} | each for name, each in found.items()}


def table(counts: dict[str, dict[str, int]]) -> str:
    """The numbers as text, a line a task."""
    columns = ("examples", "overlapping", "same", "near", "shared")
    lines = [("evaluation task", *columns), *((name, *(str(each[column]) for column in columns)) for name, each in counts.items())]
    return text_tables.aligned(lines, "lr")


if __name__ == "__main__":
    main()
