"""Figures as data, and the one hand that draws them.

A paper's module says what stands where (`Figure`, `Panel`, `Mark`); `save` draws it as PNG and PDF and writes beside them, as CSV, every
value that is drawn. Ours have their 95% interval, and the number of runs is on the figure. What a paper prints is drawn open: with a full
line where it was read in the paper, with a lighter one where it was read in a reprint.
"""

import dataclasses
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from paper_figures import statistics
from prompt_tuning import files

# Okabe and Ito's palette, told apart by colour-blind readers; markers tell them apart without colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#F0E442")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "h")
# What is in several figures looks the same in all.
_ALWAYS = {
    "prompt tuning": 0, "model tuning": 1, "instruction tuning": 2, "prompt on instruction tuning": 3, "LoRA": 4, "prefix tuning": 5,
    "IA3": 6, "frozen": 7, "few-shot": 8,
}  # fmt: skip
COLUMNS = ("panel", "series", "source", "x", "value", "low", "high", "runs")
_MOST_IN_AXES = 5
# Neighbouring lines, as a share of the axis.
_APART = 0.006
OURS, PRINTED, SECONDARY = "ours", "published", "published, second hand"

Kind = Literal["lines", "bars", "scatter", "matrix"]


@dataclasses.dataclass(frozen=True)
class Mark:
    """One value of a figure.

    Attributes:
      series: the line or colour it belongs to; of a matrix, its row.
      x: a number, or a name among others; of a matrix, its column.
      value: height; of a matrix, the cell.
      low: lower bound of its interval; NaN where there is none.
      high: upper bound.
      runs: how many of ours it is over.
      source: OURS, PRINTED or SECONDARY.
    """

    series: str
    x: float | str
    value: float
    low: float = math.nan
    high: float = math.nan
    runs: int = 0
    source: str = OURS


@dataclasses.dataclass(frozen=True)
class Panel:
    """A pair of axes.

    Attributes:
      title: above it.
      x_label: what x is, with its unit.
      y_label: what the values are, with their unit.
      marks: what stands in it; at least one.
      kind: `lines`, `bars` (x are names), `scatter` (x are numbers) or `matrix`.
      log: x is on a logarithmic scale.
      chance: a horizontal line: the score of guessing.
    """

    title: str
    x_label: str
    y_label: str
    marks: Sequence[Mark]
    kind: Kind = "lines"
    log: bool = False
    chance: float | None = None


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: its name among those of a paper, what it shows in a sentence or two (also what goes the other way), and its panels."""

    name: str
    caption: str
    panels: Sequence[Panel]


def mark(series: str, x: float | str, strata: statistics.Strata) -> Mark:
    """A mean of our runs, with its interval."""
    found = statistics.mean(strata)
    return Mark(series, x, found.value, found.low, found.high, found.runs)


def source(verified: str) -> str:
    """How a printed value is drawn, by the column `verified` of the published tables."""
    return PRINTED if verified.strip() == "yes" else SECONDARY


def printed(row: Mapping[str, str], series: str, x: float | str) -> Mark:
    """A value that a paper prints, of a row of the published tables."""
    return Mark(series, x, float(row["value"]), source=source(row["verified"]))


def having_ours(figures: Iterable[Figure]) -> list[Figure]:
    """The figures that show a run of ours."""
    return [figure for figure in figures if any(one.source == OURS for panel in figure.panels for one in panel.marks)]


def rows(figure: Figure) -> list[dict[str, str]]:
    """Every value of a figure."""
    return [
        {"panel": panel.title, "series": one.series, "source": one.source, "x": _text(one.x), "runs": str(one.runs)}
        | {name: _text(getattr(one, name)) for name in ("value", "low", "high")}
        for panel in figure.panels
        for one in panel.marks
    ]


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else "" if math.isnan(value) else f"{value:.6g}"


def save(figure: Figure, folder: pathlib.Path, prefix: str) -> list[pathlib.Path]:
    """Draws a figure into `folder/PREFIX-NAME.png` and `.pdf`, and its values into `.csv`; each is written whole."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{prefix}-{figure.name}"
    drawn = draw(figure)
    paths = [folder / f"{stem}.{suffix}" for suffix in ("csv", "png", "pdf")]
    files.write_csv(paths[0], rows(figure), COLUMNS)
    for path, metadata in ((paths[1], {"Software": None}), (paths[2], {"CreationDate": None, "Producer": None, "Creator": None})):
        picture = io.BytesIO()
        drawn.savefig(picture, format=path.suffix[1:], dpi=150, metadata=metadata)
        files.atomic_write(path, picture.getvalue())
    plt.close(drawn)
    return paths


def draw(figure: Figure) -> Any:
    """The figure as Matplotlib's."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "pdf.fonttype": 42, "legend.fontsize": 8}):
        columns = min(len(figure.panels), 3)
        lines = -(-len(figure.panels) // columns)
        drawn, axes = plt.subplots(lines, columns, figsize=(4.4 * columns, 3.6 * lines), layout="constrained", squeeze=False)
        places = _places(each.series for panel in figure.panels if panel.kind != "matrix" for each in panel.marks)
        for panel, ax in zip(figure.panels, axes.flat, strict=False):
            _draw_panel(panel, ax, places)
        for ax in axes.flat[len(figure.panels) :]:
            ax.set_axis_off()
        _say_series(drawn, axes.flat[: len(figure.panels)])
        return drawn


def _say_series(drawn: Any, axes: Sequence[Any]) -> None:
    """A legend in each of the axes, or where the series are many one below them all, so that none covers a mark."""
    told = [dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True)) for ax in axes]
    every = {label: handle for each in told for label, handle in each.items()}
    if len(every) > _MOST_IN_AXES:
        drawn.legend(every.values(), every.keys(), loc="outside lower center", ncols=min(len(every), 2 * len(axes), 6), frameon=False)
        return
    for ax, each in zip(axes, told, strict=True):
        if len(each) > 1:
            ax.legend(frameon=False)


def _places(series: Iterable[str]) -> dict[str, int]:
    """Colour and marker of each series: those of all figures have their own, the others take what is free."""
    names = list(dict.fromkeys(series))
    found = {name: _ALWAYS[name] for name in names if name in _ALWAYS}
    free = [place for place in range(len(COLOURS)) if place not in found.values()] or list(range(len(COLOURS)))
    others = [name for name in names if name not in found]
    return found | {name: free[number % len(free)] for number, name in enumerate(others)}


def _draw_panel(panel: Panel, ax: Any, places: dict[str, int]) -> None:
    ax.set_title(panel.title)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    if panel.kind == "matrix":
        _draw_matrix(panel, ax)
        return
    if panel.chance is not None:
        ax.axhline(panel.chance, color="#666666", linewidth=0.8, linestyle=":", label="guessing")
    if panel.log:
        ax.set_xscale("log")
    names = list(dict.fromkeys(each.x for each in panel.marks if isinstance(each.x, str)))
    by_line: dict[tuple[str, str], list[Mark]] = {}
    for each in panel.marks:
        by_line.setdefault((each.series, each.source), []).append(each)
    every_x = [names.index(each.x) if isinstance(each.x, str) else each.x for each in panel.marks]
    for number, ((series, told), marks) in enumerate(by_line.items()):
        xs = [names.index(each.x) if isinstance(each.x, str) else each.x for each in marks]
        if panel.kind == "bars":
            width = 0.8 / len(by_line)
            xs = [x + (number - (len(by_line) - 1) / 2) * width for x in xs]
            _draw_bars(ax, series, told, xs, marks, places[series], width)
        else:
            if panel.kind == "lines":
                xs = _beside(xs, number - (len(by_line) - 1) / 2, every_x, log=panel.log)
            _draw_line(ax, series, told, xs, marks, places[series], joined=panel.kind == "lines")
    if names:
        long = max(map(len, names)) * len(names) > 40
        ax.set_xticks(range(len(names)), names, rotation=30 if long else 0, ha="right" if long else "center")
    elif panel.log and len({each.x for each in panel.marks}) <= 6:
        ticks = sorted({float(each.x) for each in panel.marks})
        ax.set_xticks(ticks, [short(tick) for tick in ticks])
        ax.minorticks_off()
        if len(ticks) == 1:  # Matplotlib's own limits leave a single x off the canvas.
            ax.set_xlim(ticks[0] / 3, ticks[0] * 3)
    ax.grid(axis="y", alpha=0.3)
    runs = sorted({each.runs for each in panel.marks if each.runs})
    if runs:
        told = f"{runs[0]} runs" if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"
        ax.annotate(f"{told} a mark", (0.99, 0.01), xycoords="axes fraction", ha="right", va="bottom", fontsize=7, color="#666666")


def _beside(xs: Sequence[float], place: float, every_x: Sequence[float], *, log: bool) -> list[float]:
    """A little left or right of where the marks stand, so that no interval hides another's."""
    low, high = min(every_x), max(every_x)
    if log:
        return [x * (high / low) ** (_APART * place) for x in xs]
    return [x + _APART * place * (high - low) for x in xs]


def _errors(marks: Sequence[Mark]) -> Any:
    bounds = [(each.value - each.low, each.high - each.value) for each in marks]
    # A percentile interval may leave its mean outside by a rounding.
    return [[0.0 if math.isnan(pair[side]) else max(0.0, pair[side]) for pair in bounds] for side in (0, 1)]


def _label(series: str, told: str) -> str:
    return series if told == OURS else f"{series} ({told})"


def _draw_line(ax: Any, series: str, told: str, xs: Sequence[float], marks: Sequence[Mark], place: int, *, joined: bool) -> None:
    look: dict[str, Any] = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 5, "capsize": 2.5, "linewidth": 1.3}
    if told != OURS:
        look |= {"markerfacecolor": "white", "linestyle": "--" if joined else "none", "alpha": 1.0 if told == PRINTED else 0.45}
    elif not joined:
        look["linestyle"] = "none"
    order = sorted(range(len(xs)), key=lambda number: xs[number])
    held = [marks[number] for number in order]
    ax.errorbar([xs[number] for number in order], [each.value for each in held], yerr=_errors(held), label=_label(series, told), **look)


def _draw_bars(ax: Any, series: str, told: str, xs: Sequence[float], marks: Sequence[Mark], place: int, width: float) -> None:
    look: dict[str, Any] = {"color": COLOURS[place]}
    if told != OURS:
        look = {"facecolor": "white", "edgecolor": COLOURS[place], "linewidth": 1.2, "alpha": 1.0 if told == PRINTED else 0.45}
    ax.bar(
        xs, [each.value for each in marks], width * 0.92, yerr=_errors(marks), label=_label(series, told),
        error_kw={"capsize": 2.5, "linewidth": 1}, **look,
    )  # fmt: skip


def _draw_matrix(panel: Panel, ax: Any) -> None:
    import numpy as np

    series = list(dict.fromkeys(each.series for each in panel.marks))
    names = list(dict.fromkeys(_text(each.x) for each in panel.marks))
    cells = np.full((len(series), len(names)), np.nan)
    for each in panel.marks:
        cells[series.index(each.series), names.index(_text(each.x))] = each.value
    # Values of both signs are drawn around zero.
    both = np.nanmin(cells) < 0 < np.nanmax(cells)
    most = np.nanmax(np.abs(cells))
    ax.imshow(cells, aspect="auto", cmap="PuOr" if both else "viridis", vmin=-most if both else None, vmax=most if both else None)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(series)), series)
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for (row, column), value in np.ndenumerate(cells):
        if not np.isnan(value):
            dark = abs(value) > 0.6 * most if both else value < middle
            ax.annotate(f"{value:.2f}", (column, row), ha="center", va="center", fontsize=7, color="white" if dark else "black")


def short(value: float) -> str:
    """A number of parameters or examples, as an axis shows it."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
