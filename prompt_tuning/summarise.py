"""Sums up an evaluation over many tasks as papers on instruction tuning do: by category of task, or over the templates of one task.

    python -m prompt_tuning.summarise runs/sni --by=category [--split=test] [--json]
    python -m prompt_tuning.summarise runs/flan --by=template --split=test --dev=validation
    python -m prompt_tuning.summarise runs/mmlu --by=group --split=test

Reads what `python -m prompt_tuning.evaluate --workdir=RUN` wrote of a checkpoint and split.

By category, as Tk-Instruct is scored (Wang et al. 2022, arXiv:2204.07705, and its released scorer): ROUGE-L and exact match over all
examples; for each category its official metric, exact match for six kinds of classification and ROUGE-L for the others. An example counts
once, so that a task weighs by its examples; the paper takes 100 of each.

By template, of tasks called `TASK/TEMPLATE` (`configs/data/every_template.gin`): the mean over templates and, with --dev, the score of the
template that was best on the dev split (FLAN, Wei et al. 2021, section 3); the median and the quartiles (T0, Sanh et al. 2021, section 6).
The best score without --dev is chosen on the examples that it is of, and so flatters.

By group, of tasks that each belong to one (`configs/data/mmlu.gin`, `bbh.gin`): for all tasks, each group, and each part of a group called
`GROUP/PART`, the mean over tasks, as the Flan papers report MMLU, and over examples, as MMLU's own script does; by the tasks' first metric.

Intervals are 95% bootstrap intervals over the examples (`prompt_tuning/uncertainty.py`); templates are taken as given.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import text_tables
from prompt_tuning.compare import Evaluated, Row, evaluated
from prompt_tuning.errors import UserError, reported

if TYPE_CHECKING:
    from prompt_tuning.uncertainty import Interval

# The categories that Tk-Instruct scores by exact match, in lower case.
EXACT_MATCH_CATEGORIES = frozenset(
    (
        "answerability classification",
        "cause effect classification",
        "coreference resolution",
        "dialogue act recognition",
        "textual entailment",
        "word analogy",
    )
)
SEPARATOR = "/"  # Between a task's name and its template's.


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a summary: `what` was summed up (a category, a statistic) of how many tasks or templates, and its value by `metric`.

    `template` is the one whose score it is, where it is of one.
    """

    of: str
    what: str
    count: int
    metric: str
    value: "Interval"
    template: str | None = None


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="a work folder")
    parser.add_argument("--by", choices=("category", "template", "group"), required=True, help="what to sum up by")
    parser.add_argument("--checkpoint", choices=("best", "latest", "base"), default="best", help="that was evaluated (default best)")
    parser.add_argument("--split", default="validation", help="that was evaluated (default validation)")
    parser.add_argument("--dev", help="the split, evaluated too, on which the best template is chosen")
    parser.add_argument("--resamples", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line of the table instead of it")
    flags = parser.parse_args(argv)
    with reported():
        if flags.resamples < 1:
            raise UserError(f"--resamples: wanted 1 or more, got {flags.resamples}")
        if flags.dev and flags.by != "template":
            raise UserError(f"--dev: wanted with --by=template, which chooses among templates, got --by={flags.by}; leave it out")
        found = evaluated(flags.run, f"{flags.checkpoint}-{flags.split}")
        if flags.by == "category":
            lines = by_category(found, named=flags.run, resamples=flags.resamples)
        elif flags.by == "group":
            lines = by_group(found, named=flags.run, resamples=flags.resamples)
        else:
            dev = evaluated(flags.run, f"{flags.checkpoint}-{flags.dev}") if flags.dev else None
            lines = by_template(found, dev, named=flags.run, resamples=flags.resamples)
        print("\n".join(json.dumps(dataclasses.asdict(line)) for line in lines) if flags.json else table(lines))


def by_category(found: Evaluated, *, named: str, resamples: int) -> list[Line]:
    """Both metrics over all examples, then the official metric of each category, in the alphabet's order.

    Raises UserError where a task is of no category or of several; `named` is the run's name there.
    """
    hint = "evaluate tasks of Super-NaturalInstructions (configs/data/super_natural.gin)"
    categories = _grouped(found, "categories", named=named, hint=hint)

    def line(what: str, tasks: Sequence[str], metric: str) -> Line:
        rows = [row for task in tasks for row in found.rows[task]]
        return Line("categories", what, len(tasks), metric, _interval(metric, rows, resamples))

    lines = [line("all", list(found.rows), metric) for metric in ("rougeL", "tk_exact_match")]
    for category, tasks in sorted(categories.items()):
        lines.append(line(category, tasks, "tk_exact_match" if category.lower() in EXACT_MATCH_CATEGORIES else "rougeL"))
    return lines


def by_group(found: Evaluated, *, named: str, resamples: int) -> list[Line]:
    """The mean over tasks and over examples, of all tasks and of each group and its parts, in the alphabet's order.

    Raises UserError where a task is of no group or of several, or the tasks' first metrics differ; `named` is the run's name there.
    """
    import numpy as np

    from prompt_tuning import uncertainty

    groups = _grouped(found, "groups", named=named, hint="evaluate tasks of configs/data/mmlu.gin or bbh.gin")
    first = {next(iter(values)) for values in found.metrics.values()}
    if len(first) > 1:
        raise UserError(f"{named}: the tasks are judged by {', '.join(sorted(first))}, wanted one metric; evaluate tasks of one collection")
    (metric,) = first
    members: dict[str, list[str]] = {"all": list(found.rows)}
    for group, tasks in sorted(groups.items()):
        parts = group.split(SEPARATOR)
        for depth in range(1, len(parts) + 1):
            members.setdefault(SEPARATOR.join(parts[:depth]), []).extend(tasks)
    lines = []
    for what, tasks in members.items():
        told = [(uncertainty.as_examples(found.rows[task]), [row["prediction"] for row in found.rows[task]]) for task in tasks]
        (over_tasks,) = uncertainty.of_several(metric, told, [np.mean], together=False, resamples=resamples)
        over_examples = _interval(metric, [row for task in tasks for row in found.rows[task]], resamples)
        lines += [
            Line(what, "mean of tasks", len(tasks), metric, over_tasks),
            Line(what, "all examples", len(tasks), metric, over_examples),
        ]
    return lines


def _grouped(found: Evaluated, groups: str, *, named: str, hint: str) -> dict[str, list[str]]:
    """The tasks of each group."""
    members: dict[str, list[str]] = {}
    for task, rows in found.rows.items():
        own = {row.get("group", "") for row in rows}
        if len(own) > 1 or not all(own):
            raise UserError(f"{named}: task {task} is of {len(own - {''})} {groups}, wanted one; {hint}")
        _check_predicted(named, task, rows)
        members.setdefault(own.pop(), []).append(task)
    return members


def by_template(found: Evaluated, dev: Evaluated | None, *, named: str, resamples: int) -> list[Line]:
    """Mean, quartiles and best over the templates of each task, by each metric that all of them have.

    With `dev`, the evaluation on another split, also the score of the template that is best there (the first of several).
    Raises UserError where no task has templates, or `dev` lacks one of them; `named` is the run's name there.
    """
    templates: dict[str, list[str]] = {}
    for task in found.rows:
        name, separator, template = task.partition(SEPARATOR)
        if separator:
            templates.setdefault(name, []).append(template)
    if not templates:
        raise UserError(f"{named}: no task is called TASK{SEPARATOR}TEMPLATE; evaluate with configs/data/every_template.gin")
    lines = []
    for name, own in templates.items():
        tasks = [f"{name}{SEPARATOR}{template}" for template in own]
        for task in tasks:
            _check_predicted(named, task, found.rows[task])
            if dev is not None and task not in dev.rows:
                raise UserError(f"{named}: {task} was not evaluated on the dev split; evaluate both with the same templates")
        for metric in found.metrics[tasks[0]]:
            if all(metric in found.metrics[task] for task in tasks):
                lines += _spread(name, own, metric, found, resamples)
                if dev is not None:
                    lines.append(_best_on_dev(name, own, metric, found, dev, resamples))
    return lines


def _spread(name: str, templates: Sequence[str], metric: str, found: Evaluated, resamples: int) -> list[Line]:
    import numpy as np

    from prompt_tuning import uncertainty

    statistics: dict[str, Callable[[np.ndarray], Any]] = {
        "mean": np.mean,
        "lowest": np.min,
        "lower quartile": lambda scores: np.quantile(scores, 0.25),
        "median": np.median,
        "upper quartile": lambda scores: np.quantile(scores, 0.75),
        "best": np.max,
    }
    rows = [found.rows[f"{name}{SEPARATOR}{template}"] for template in templates]
    told = [(uncertainty.as_examples(each), [row["prediction"] for row in each]) for each in rows]
    intervals = uncertainty.of_several(metric, told, list(statistics.values()), resamples=resamples)
    return [Line(name, what, len(templates), metric, value) for what, value in zip(statistics, intervals, strict=True)]


def _best_on_dev(name: str, templates: Sequence[str], metric: str, found: Evaluated, dev: Evaluated, resamples: int) -> Line:
    from prompt_tuning import uncertainty
    from prompt_tuning.data import metrics

    def score(template: str) -> float:
        rows = dev.rows[f"{name}{SEPARATOR}{template}"]
        _check_predicted("--dev", f"{name}{SEPARATOR}{template}", rows)
        return metrics.compute_for_examples([metric], uncertainty.as_examples(rows), [row["prediction"] for row in rows])[metric]

    best = max(templates, key=score)
    value = _interval(metric, found.rows[f"{name}{SEPARATOR}{best}"], resamples)
    return Line(name, "best on dev", len(templates), metric, value, best)


def _interval(metric: str, rows: Sequence[Row], resamples: int) -> "Interval":
    from prompt_tuning import uncertainty

    return uncertainty.interval(metric, uncertainty.as_examples(rows), [[row["prediction"] for row in rows]], resamples=resamples)


def _check_predicted(named: str, task: str, rows: Sequence[Row]) -> None:
    if any("prediction" not in row for row in rows):
        raise UserError(f"{named}: {task} was judged by its loss alone; wanted predictions; leave Evaluation.mode at 'auto'")


def table(lines: Sequence[Line]) -> str:
    """The lines as text."""
    cells = [("of", "what", "number", "metric", "value", "95% interval")]
    for line in lines:
        what = line.what if line.template is None else f"{line.what}: {line.template}"
        bounds = f"{line.value.low:.4f} to {line.value.high:.4f}"
        cells.append((line.of, what, str(line.count), line.metric, f"{line.value.value:.4f}", bounds))
    return text_tables.aligned(cells, "llrlrl")


if __name__ == "__main__":
    main()
