"""What the figures of the papers on instruction tuning share: scores on held-out tasks, gains over the base as it is, printed values."""

import re
from collections.abc import Callable, Iterable, Sequence

from experiments import mini
from experiments.instructions import BASE
from paper_figures import drawing, results, statistics

Strata = list[list[float]]
Row = results.Row
# Columns that are empty but for the runs that a figure is about.
_PLAIN = ("as_it_is", "exemplars", "few_shot_frac", "templates", "tasks", "instances", "examples", "start", "steps_told")


def tuned(paper: str, *, test: str = "instructions", clusters: int = 6, form: str = "instructions", base: str = BASE, **own: str) -> Strata:
    """Mean held-out accuracy of each run of a kind, one stratum; empty where there is none. `own` are columns that are not empty."""
    wanted = {**dict.fromkeys(_PLAIN, ""), "trained_on": f"{clusters}_clusters", "form": form, "base": base, "test": test, **own}
    return results.mixture(results.where(results.ours(paper), metric="accuracy", **wanted))


def untuned(paper: str, *, test: str = "instructions", base: str = BASE) -> Strata:
    """The same of the base as it is, of which there is one value."""
    rows = results.where(results.ours(paper), metric="accuracy", as_it_is="yes", trained_on="", base=base, test=test)
    return results.mixture(rows)


def bases(paper: str) -> tuple[str, str]:
    """The smallest and the largest base that there are runs on; of all where there are none."""
    found = [base for base in mini.BASES if results.where(results.ours(paper), base=base, as_it_is="")] or list(mini.BASES)
    return found[0], found[-1]


def difference(first: Strata, second: Strata) -> statistics.Estimate | None:
    """The first less the second, seed by seed; the one value of a base as it is stands beside every seed. None where a side is missing."""
    if not first or not second:
        return None
    seeds = max(len(first[0]), len(second[0]))
    first, second = ([stratum * seeds if len(stratum) == 1 else stratum for stratum in side] for side in (first, second))
    return statistics.difference(first, second) if list(map(len, first)) == list(map(len, second)) else None


def of_differences(first: tuple[Strata, Strata], second: tuple[Strata, Strata]) -> statistics.Estimate | None:
    """(a - b) - (c - d), seed by seed. None where a side is missing."""
    if not all((*first, *second)):
        return None
    sides = []
    for one, other in (first, second):
        seeds = max(len(one[0]), len(other[0]))
        sides.append(statistics.less([one[0] * (seeds // len(one[0]))], [other[0] * (seeds // len(other[0]))]))
    return difference(*sides)


def marks(series: str, found: Iterable[tuple[float | str, Strata]]) -> list[drawing.Mark]:
    """A mark for each x that there are runs of."""
    return [drawing.mark(series, x, strata) for x, strata in found if strata]


def by_size(paper: str) -> list[drawing.Mark]:
    """Held-out accuracy by parameters of the base, tuned on instructions and as it is."""
    bases = [(mini.PARAMETERS[base], base) for base in mini.BASES]
    return [
        *marks("instruction tuning", ((size, tuned(paper, base=base)) for size, base in bases)),
        *marks("frozen", ((size, untuned(paper, base=base)) for size, base in bases)),
    ]


def printed(rows: Sequence[Row], series: str | Callable[[Row], str], x: Callable[[Row], float | str]) -> list[drawing.Mark]:
    """Published values as marks."""
    return [drawing.printed(row, series if isinstance(series, str) else series(row), x(row)) for row in rows]


def number(text: str) -> float:
    """The first number of a text, with K, M or B for thousands, millions and billions: 220M is 2.2e8."""
    found = re.search(r"(\d+(?:\.\d+)?)([KMB]?)", text)
    assert found, text
    return float(found[1]) * {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}[found[2]]


def drawn(figures: Iterable[drawing.Figure]) -> list[drawing.Figure]:
    """The figures, without panels that hold nothing and without lines of one point; those without runs of ours are left out."""
    found = []
    for figure in figures:
        panels = [panel for panel in figure.panels if panel.marks and (panel.kind != "lines" or _is_line(panel))]
        found.append(drawing.Figure(figure.name, figure.caption, panels))
    return drawing.having_ours(found)


def _is_line(panel: drawing.Panel) -> bool:
    """Whether a series has two points; that of the base as it is stands at every x that there might be."""
    series = [mark.series for mark in panel.marks if mark.series != "frozen"]
    return any(series.count(name) > 1 for name in series)
