"""Rows of results: ours, of `experiments/PAPER/results.csv`, and what papers print, of `paper_figures/published/`."""

import collections
import functools
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from experiments import points

ROOT = pathlib.Path(__file__).parents[1]
PUBLISHED = pathlib.Path(__file__).parent / "published"

Row = Mapping[str, str]


@functools.cache
def read(path: pathlib.Path) -> tuple[Row, ...]:
    """The rows of a CSV, read once; none where there is no file."""
    return tuple(points.read(path))


@functools.cache
def ours(paper: str) -> tuple[Row, ...]:
    """The rows of a paper's runs; none where nothing has been run."""
    return read(ROOT / "experiments" / paper / "results.csv")


@functools.cache
def published(name: str) -> tuple[Row, ...]:
    """The rows of a table that a paper prints."""
    return read(PUBLISHED / f"{name}.csv")


def where(rows: Iterable[Row], **wanted: str | Sequence[str]) -> list[Row]:
    """The rows whose columns hold these values; a sequence allows each of its values, "" a column that is empty or missing."""

    def fits(row: Row) -> bool:
        return all((row.get(name) or "") in ((value,) if isinstance(value, str) else value) for name, value in wanted.items())

    return [row for row in rows if fits(row)]


def strata(rows: Iterable[Row], *, by: str = "task") -> list[list[float]]:
    """The values of rows, those of one task a stratum, in the order of their seeds; tasks in the order of their names."""
    found: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
    for row in rows:
        found[row[by]].append((int(row["seed"]), float(row["value"])))
    return [[value for _, value in sorted(found[name])] for name in sorted(found)]


def mixture(rows: Iterable[Row]) -> list[list[float]]:
    """One stratum of runs that each did all the tasks: the mean over tasks of each seed."""
    found: dict[int, list[float]] = collections.defaultdict(list)
    for row in rows:
        found[int(row["seed"])].append(float(row["value"]))
    return [[sum(values) / len(values) for _, values in sorted(found.items())]] if found else []
