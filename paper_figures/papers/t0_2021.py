"""Sanh et al. 2021 (T0, arXiv:2110.08207): what its figures and claims are in our runs."""

import collections

import numpy as np

from experiments.instructions import BASE
from paper_figures import drawing, instructions, results
from paper_figures.claims import Claim
from paper_figures.instructions import difference, marks, printed

TITLE = "Sanh et al. 2021 (T0): multitask prompted training enables zero-shot task generalization"
_PAPER = "t0_2021"
_COUNTS = {1: "1", 3: "3", 10: ""}


def _rows(count: int | None) -> list[results.Row]:
    """Scores by template of the runs of so many templates; None: of the base as it is."""
    wanted = {"as_it_is": "yes", "trained_on": ""} if count is None else {"as_it_is": "", "templates": _COUNTS[count]}
    return results.where(results.ours(_PAPER), metric="accuracy", test="templates", **wanted)


def _over_templates(rows: list[results.Row]) -> tuple[list[list[float]], list[list[float]]]:
    """Median and interquartile range over the templates of a task, each as the mean over tasks of every seed."""
    by_run: dict[int, dict[str, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        by_run[int(row["seed"])][row["task"].partition("/")[0]].append(float(row["value"]))
    found = []
    for at in (lambda values: np.median(values), lambda values: np.subtract(*np.percentile(values, [75, 25]))):
        found.append([[float(np.mean([at(values) for values in by_run[seed].values()])) for seed in sorted(by_run)]] if by_run else [])
    return found[0], found[1]


def figures() -> list[drawing.Figure]:
    """All figures that there are results for."""
    return instructions.drawn((_templates(), _tasks()))


def _templates() -> drawing.Figure:
    found = {count: _over_templates(_rows(count)) for count in _COUNTS}
    frozen = _over_templates(_rows(None))
    panels = []
    for place, title in enumerate(("median over templates", "interquartile range over templates")):
        ours = marks("instruction tuning", ((count, sides[place]) for count, sides in found.items()))
        if ours:
            ours += marks("frozen", ((count, frozen[place]) for count in _COUNTS))
        panels.append(drawing.Panel(title, "templates of each task tuned on", "accuracy, mean over held-out tasks", ours, log=True))
    caption = (
        "Figure 6 in miniature: each held-out task is asked by every template of its own (7 or 8), none of which was "
        "tuned on. The paper draws boxes and prints no values: the median rises on 8 of 11 data sets from 1 to 5.7 "
        "prompts a data set, the spread narrows on most."
    )
    return drawing.Figure("templates", caption, panels)


def _tasks() -> drawing.Figure:
    ours = []
    for series, rows in (("frozen", _rows(None)), ("instruction tuning", _rows(10))):
        for task in sorted({row["task"].partition("/")[0] for row in rows}):
            median, _ = _over_templates([row for row in rows if row["task"].startswith(f"{task}/")])
            ours += marks(series, [(task, median)])
    theirs = printed(
        results.published("t0_2021_heldout"),
        lambda row: "T0" if row["model"] == "T0" else "T5+LM, few-shot",
        lambda row: row["task"],
    )
    caption = (
        f"Figure 4: median over templates by held-out task. Ours: {BASE}; theirs: T0 11B as T-Few's table 9 reprints it, "
        "beside few-shot T5+LM."
    )
    return drawing.Figure(
        "tasks",
        caption,
        [
            drawing.Panel("the world", "task held out", "accuracy", ours, kind="bars"),
            drawing.Panel("figure 4 of the paper", "data set held out", "accuracy in %", theirs, kind="bars"),
        ],
    )


def claims() -> list[Claim]:
    """What the paper says."""
    found = {count: _over_templates(_rows(count)) for count in _COUNTS}
    frozen = _over_templates(_rows(None))
    return [
        Claim(
            "multitask prompted training helps on tasks held out (median over templates)",
            "figure 4: direction only",
            difference(found[10][0], frozen[0]),
        ),
        Claim("more templates of a task raise the median", "figure 6: on 8 of 11 data sets", difference(found[10][0], found[1][0])),
        Claim("some more raise it too: three against one", "figure 6: direction only", difference(found[3][0], found[1][0])),
        Claim("more templates narrow the spread over templates", "figure 6: on most data sets", difference(found[1][1], found[10][1])),
    ]
