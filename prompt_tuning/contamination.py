"""Says which evaluation examples a mixture's training data holds already, and fails where there are any.

    python -m prompt_tuning.contamination --gin_file=configs/data/instructions.gin --gin.TRAIN_FILES='["data/*.jsonl"]' \
      [--split=test] [--allow=TASK ...] [--ngram=13] [--output=overlaps.jsonl] [--json]

The evaluation set is the configuration's (evaluation_data where it has some, else its data), on --split; it is compared with the training
split of the data. `prompt_tuning/data/overlap.py` says what an overlap is. Memory grows with the evaluation set; training text streams by.
Prints a table, or one JSON object; --output gets a line for each overlap, with both texts. Ends with status 2 where a task that
--allow does not name has an overlap. What `train` itself looks for before it begins is in `overlap.Guard`.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, text_tables
from prompt_tuning.errors import UserError
from prompt_tuning.evaluate import FALLBACKS

if TYPE_CHECKING:
    import seqio

    from prompt_tuning.data.example_tables import ExampleTable
    from prompt_tuning.data.overlap import Overlap, Text
    from prompt_tuning.experiment import Experiment

_DECODED = 4096  # Rows told together.
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


def texts(task: Any, split: str, limit: int | None = None) -> "Iterator[Text]":
    """The first examples of a task's split as text, one at a time; what one without texts would have said is read back from its tokens."""
    from prompt_tuning.data import mixtures
    from prompt_tuning.data.overlap import Text

    if getattr(task, "read", None) is not None:
        for index, row in enumerate(task.read(split)[:limit]):
            yield Text(task.title, index, row.inputs, row.targets)
        return
    for index, example in enumerate(mixtures.elements(task, split, limit)):
        yield Text(task.title, index, _said(task, example, "inputs"), _said(task, example, "targets"))


def _said(task: "seqio.Task", example: dict[str, Any], name: str) -> str:
    text = example.get(f"{name}_pretokenized")
    return task.output_features[name].vocabulary.decode(example[name].tolist()) if text is None else text


def refuse(experiment: "Experiment") -> None:
    """What `train` does before it begins: see `overlap.Guard`, the experiment's `overlaps`. Text without end is not looked at.

    Raises UserError, naming the tasks, where training data holds evaluation examples that it should not.
    """
    guard, split = experiment.overlaps, experiment.evaluation.split
    if "*" in guard.allow:
        return
    vocabulary = experiment.vocabulary.load()
    evaluated = _finite((experiment.evaluation_data or experiment.data).tasks(vocabulary), split)
    trained = {task.title: task for task in _finite(experiment.data.tasks(vocabulary), "train")}
    evaluated = [task for task in evaluated if trained and not guard.allows(task.title)]
    shown_twice = [task for task in evaluated if task.title in trained and _given_twice(experiment, task, trained[task.title])]
    if shown_twice:
        raise _refused(
            f"half of the {split} examples of {shown_twice[0].title} or more are its training examples, targets too: give it other files",
            [task.title for task in shown_twice],
        )
    alone = [task for task in evaluated if task.title not in trained]
    if alone and (found := _held(experiment, alone, list(trained.values()))):
        listed = ", ".join(f"{name} ({count})" for name, count in found.items())
        raise _refused(
            f"training data holds {split} examples of tasks that are not trained on: {listed}; see them with "
            "python -m prompt_tuning.contamination --output=FILE, leave them out of training",
            list(found),
        )


def _refused(what: str, names: list[str]) -> UserError:
    return UserError(f'{what}, or allow it with --gin.ALLOW_OVERLAP="{names}"')


def _finite(tasks: "Sequence[Any]", split: str) -> list[Any]:
    return [task for task in tasks if split in task.splits and not getattr(task, "streaming", False)]


def _given_twice(experiment: "Experiment", task: Any, trained: Any) -> bool:
    """Whether half of a task's evaluation examples or more are among its training examples, token for token; fewer are said aloud."""
    from prompt_tuning.data import example_tables, notes

    split, limit = experiment.evaluation.split, experiment.evaluation.max_examples
    if split == "train":
        return False  # Nobody evaluates on this by mistake.
    mine = _tokens(example_tables.example_table(task, split))[:limit]
    theirs = set(_tokens(example_tables.example_table(trained, "train", experiment.choice_losses is not None)))
    count = sum(example in theirs for example in mine)
    if 0 < 2 * count < len(mine):
        notes.say(f"note: {count} of {len(mine)} {split} examples of {task.title} are training examples of it too, targets and all")
    return 2 * count >= len(mine)


def _tokens(table: "ExampleTable") -> list[tuple[bytes, bytes]]:
    sides = ((table.input_ids, table.input_splits), (table.target_ids, table.target_splits))
    whole = [(ids.tobytes(), (splits * ids.itemsize).tolist()) for ids, splits in sides]
    rows = [[ids[begin:end] for begin, end in itertools.pairwise(splits)] for ids, splits in whole]
    return list(zip(*rows, strict=True))


def _decoded(task: Any, table: "ExampleTable", limit: int | None = None) -> "Iterator[Text]":
    """The first examples of a table as text. Texts are told again by their tokens: that costs less than to read and tell them anew."""
    from prompt_tuning.data import plain_vocabularies
    from prompt_tuning.data.overlap import Text

    vocabulary = task.vocabulary if hasattr(task, "vocabulary") else task.output_features["targets"].vocabulary
    for begin in range(0, min(len(table), limit or len(table)), _DECODED):
        rows = [table[row] for row in range(begin, min(begin + _DECODED, len(table), limit or len(table)))]
        sides = [plain_vocabularies.decode_many(vocabulary, [row[name].tolist() for row in rows]) for name in ("inputs", "targets")]
        for index, (inputs, targets) in enumerate(zip(*sides, strict=True), start=begin):
            yield Text(task.title, index, inputs, targets)


def _held(experiment: "Experiment", evaluated: list[Any], trained: list[Any]) -> dict[str, int]:
    """How many evaluation examples of each task the training data holds; tasks of which it holds none are left out.

    What was found for the same data and settings is kept beside the tokens (`token_cache`).
    """
    import numpy as np

    from prompt_tuning.data import example_tables, notes, token_cache

    guard, split, limit = experiment.overlaps, experiment.evaluation.split, experiment.evaluation.max_examples
    with_choices = experiment.choice_losses is not None
    size = sum(len(example_tables.example_table(task, "train", with_choices)) for task in trained)
    if size > guard.max_examples:
        notes.say(
            f"note: {size} training examples are not looked through for evaluation examples at each start; "
            "python -m prompt_tuning.contamination does it"
        )
        return {}

    def count() -> dict[str, Any]:
        evaluation = [text for task in evaluated for text in _decoded(task, example_tables.example_table(task, split), limit)]
        tables = ((task, example_tables.example_table(task, "train", with_choices)) for task in trained)
        found = guard.search.overlaps(evaluation, (text for task, table in tables for text in _decoded(task, table)))
        counts = collections.Counter(overlap.task for overlap in found)
        return {"counts": np.array([counts[task.title] for task in evaluated])}

    entries = [
        token_cache.entry(task, part) if getattr(task, "on_disk", False) else None
        for tasks, part in ((evaluated, f"{split} {limit}"), (trained, "train"))
        for task in tasks
    ]
    known = None not in entries
    counts = token_cache.kept(evaluated[0], f"overlaps {guard.search} {entries}", count) if known else count()
    return {task.title: int(each) for task, each in zip(evaluated, counts["counts"], strict=True) if each}


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
