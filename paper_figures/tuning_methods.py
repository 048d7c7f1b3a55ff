"""What the figures of the papers on tuning methods share: how methods are called, their scores, and what they train."""

import re
from collections.abc import Iterable, Sequence

from experiments import methods, mini
from paper_figures import drawing, results, statistics

# By the file of configs/methods.
NAMES = {
    "full": "model tuning",
    "prompt": "prompt tuning",
    "prefix": "prefix tuning",
    "p_tuning_v2": "P-tuning v2",
    "p_tuning": "P-tuning",
    "lora": "LoRA",
    "ia3": "IA3",
    "adapter": "adapters",
    "norms": "layer norms",
    "tfew": "T-Few",
}
# Factors of the papers' points beside base, method, task and seed; a run that lacks one has the method's own setting.
_FACTORS = ("examples", "rank", "matrices", "losses", "width", "length", "network", "as_it_is")
PARAMETERS, EXAMPLES = "trained parameters", "training examples"
# One of three answers is right in two of the tasks, one of two in the third.
GUESSING = (1 / 3 + 1 / 3 + 1 / 2) / 3
_SIZES = {"K": 1e3, "M": 1e6, "B": 1e9}


def rows(paper: str, method: str, *, base: str = methods.BASE, test: str = "test", **factors: str | int) -> list[results.Row]:
    """The accuracies of a method's runs, of every task and seed; none where some have not been run.

    Args:
      paper: whose results.
      method: a file of configs/methods.
      base: that it was tuned on.
      test: a set of test rows.
      factors: of the runs; those not named are as the method has them.
    """
    wanted = {name: str(factors.get(name, "")) for name in _FACTORS}
    found = results.where(results.ours(paper), base=base, method=method, test=test, metric="accuracy", trained_on=methods.TASKS, **wanted)
    runs = len(methods.TASKS) * (1 if "as_it_is" in factors else len(mini.SEEDS))
    return found if len(found) == runs else []


def scores(paper: str, method: str, *, base: str = methods.BASE, test: str = "test", **factors: str | int) -> list[list[float]]:
    """The values of `rows`, a stratum a task."""
    return results.strata(rows(paper, method, base=base, test=test, **factors))


def trained(paper: str, method: str, *, base: str = methods.BASE, **factors: str | int) -> int:
    """How many parameters the method trains. Raises ValueError where it has not been run."""
    (count,) = {int(row["trained_parameters"]) for row in rows(paper, method, base=base, **factors)}
    return count


def lead(first: list[list[float]], second: list[list[float]], *, margin: float = 0.0) -> statistics.Estimate | None:
    """The first less the second, plus a margin: above zero where the first is not worse by more. None where one has not been run."""
    if not (first and second):
        return None
    if len(second[0]) == 1:  # The base as it is, which has no seeds.
        second = [stratum * len(mini.SEEDS) for stratum in second]
    return statistics.difference([[value + margin for value in stratum] for stratum in first], second)


def cost(paper: str, title: str, compared: Sequence[str], *, test: str = "test", **factors: str | int) -> drawing.Panel | None:
    """Trained parameters against score, of each method; the base as it is as a line. None where nothing has been run."""
    marks = [
        drawing.mark(NAMES[method], trained(paper, method, **factors), held)
        for method in compared
        if (held := scores(paper, method, test=test, **factors))
    ]
    if not marks:
        return None
    if base := scores(paper, "full", test=test, as_it_is="yes"):
        ends = [float(each.x) for each in marks]
        marks += [drawing.mark("frozen", x, base) for x in (min(ends), max(ends))]
    return panel(title, PARAMETERS, marks, log=True)


def panel(title: str, x_label: str, marks: Sequence[drawing.Mark], *, kind: drawing.Kind = "lines", log: bool = False) -> drawing.Panel:
    """A panel of our accuracies."""
    return drawing.Panel(title, x_label, "mean accuracy of three tasks", marks, kind=kind, log=log, chance=GUESSING)


def line(paper: str, method: str, name: str, by: str, xs: Iterable[int], *, standard: int, test: str = "test") -> list[drawing.Mark]:
    """A method's scores by one of its factors, whose value `standard` is the method's own setting."""
    return [drawing.mark(name, x, held) for x in xs if (held := scores(paper, method, test=test, **({} if x == standard else {by: x})))]


def printed(rows: Iterable[results.Row], *, series: str | None = None, x: str) -> list[drawing.Mark]:
    """What a paper prints. `series` is a column (None: the method), and so is `x`; `note` there is the number of parameters in it."""
    found = []
    for row in rows:
        place: float | str = parameters(row["note"]) if x == "note" else row[x]
        found.append(drawing.printed(row, row[series or "method"], place))
    return found


def parameters(note: str) -> float:
    """The number of trained parameters in the note of a published row, as "trainable parameters 540K"."""
    found = re.search(r"trainable parameters ([\d.]+)([KMB])", note)
    if found is None:
        raise ValueError(f"no number of trained parameters in {note!r}")
    return float(found[1]) * _SIZES[found[2]]


def drawn(name: str, caption: str, panels: Iterable[drawing.Panel | None]) -> drawing.Figure:
    """A figure of the panels that hold something."""
    return drawing.Figure(name, caption, [panel for panel in panels if panel is not None and panel.marks])
