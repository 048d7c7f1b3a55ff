"""Compares two runs, or as many runs of two kinds, on the examples that both were evaluated on.

    python -m prompt_tuning.compare runs/prompt-0 runs/prompt-1 --against runs/lora-0 runs/lora-1 [--split=test] [--json]

Reads what `python -m prompt_tuning.evaluate --workdir=RUN` wrote (of the checkpoint and split that the flags name) and gives, for each task
and metric, both scores and their difference with 95% intervals, and the p-value of a paired test: `prompt_tuning/uncertainty.py`. Runs are
paired in the order given. Several tasks are several tests: of twenty, one is below 0.05 by chance.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import text_tables
from prompt_tuning.errors import UserError, reported

if TYPE_CHECKING:
    from prompt_tuning.uncertainty import Comparison

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What an evaluation wrote of one run: the metrics of each task, and a row for each example, by task."""

    metrics: dict[str, tuple[str, ...]]
    rows: dict[str, list[Row]]


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work folders")
    parser.add_argument("--against", nargs="+", required=True, metavar="RUN", help="as many work folders")
    parser.add_argument("--checkpoint", choices=("best", "latest", "base"), default="best", help="that was evaluated (default best)")
    parser.add_argument("--split", default="validation", help="that was evaluated (default validation)")
    parser.add_argument("--resamples", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    flags = parser.parse_args(argv)
    with reported():
        if len(flags.runs) != len(flags.against):
            raise UserError(f"--against: wanted as many runs as before it ({len(flags.runs)}), got {len(flags.against)}; they are paired")
        if flags.resamples < 1:
            raise UserError(f"--resamples: wanted 1 or more, got {flags.resamples}")
        sides = [[evaluated(run, f"{flags.checkpoint}-{flags.split}") for run in side] for side in (flags.runs, flags.against)]
        found = compared(sides[0], sides[1], named=[*flags.runs, *flags.against], resamples=flags.resamples)
        plain = {task: {name: dataclasses.asdict(each) for name, each in by_metric.items()} for task, by_metric in found.items()}
        print(json.dumps(plain) if flags.json else table(found))


def evaluated(workdir: str, name: str) -> Evaluated:
    """What was written of a run's evaluation, `name` being CHECKPOINT-SPLIT. Raises UserError where it is missing or unreadable."""
    checkpoint, _, split = name.partition("-")
    folder = pathlib.Path(workdir)
    result, predictions = folder / f"evaluation-{name}.json", folder / f"predictions-{name}.jsonl"
    rows: dict[str, list[Row]] = {}
    try:
        metrics = {task: tuple(values) for task, values in json.loads(result.read_text(encoding="utf-8"))["metrics"].items()}
        for line in predictions.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.setdefault(row["task"], []).append(row)
    except FileNotFoundError as error:
        command = f"python -m prompt_tuning.evaluate --workdir={workdir} --checkpoint={checkpoint} --split={split}"
        raise UserError(f"{error.filename}: no such file; run {command}") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{folder}: evaluation-{name}.json or its predictions are not readable ({error}); evaluate it again") from error
    return Evaluated(metrics, rows)


def compared(
    first: Sequence[Evaluated], second: Sequence[Evaluated], *, named: Sequence[str], resamples: int
) -> "dict[str, dict[str, Comparison]]":
    """The comparison of each task and metric. Raises UserError where the runs were evaluated on different examples, or without predictions.

    `named` are the runs' names in errors, those of `first` before those of `second`.
    """
    from prompt_tuning import uncertainty

    runs = [*first, *second]
    found: dict[str, dict[str, Comparison]] = {}
    for task, names in runs[0].metrics.items():
        for run, name in zip(runs[1:], named[1:], strict=True):
            if _asked(run.rows.get(task, [])) != _asked(runs[0].rows[task]):
                raise UserError(f"{name}: not evaluated on the same examples of {task} as {named[0]}; evaluate both with the same settings")
        if any("prediction" not in row for run in runs for row in run.rows[task]):
            raise UserError(f"{named[0]}: {task} was judged by its loss alone; wanted predictions to compare")
        examples = uncertainty.as_examples(runs[0].rows[task])
        said = [[[row["prediction"] for row in run.rows[task]] for run in side] for side in (first, second)]
        found[task] = {name: uncertainty.compare(name, examples, said[0], said[1], resamples=resamples) for name in names}
    return found


def _asked(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(row["inputs"], row["target"]) for row in rows]


def table(found: "dict[str, dict[str, Comparison]]") -> str:
    """The comparisons as text, a line a task and metric."""
    lines = [("task", "metric", "runs", "against", "difference", "p")]
    for task, by_metric in found.items():
        for metric, each in by_metric.items():
            values = [f"{part.value:.4f} [{part.low:.4f}, {part.high:.4f}]" for part in (each.first, each.second, each.difference)]
            lines.append((task, metric, values[0], values[1], values[2], f"{each.p:.3f}"))
    return text_tables.aligned(lines)


if __name__ == "__main__":
    main()
