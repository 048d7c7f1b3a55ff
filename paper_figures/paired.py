"""Scores by task and seed, and differences between what was run for both."""

from collections.abc import Iterable, Mapping, Sequence

from paper_figures import statistics
from paper_figures.results import Row

# A score of each task and seed.
Values = Mapping[tuple[str, int], float]


def values(rows: Iterable[Row]) -> dict[tuple[str, int], float]:
    """The values of rows by task and seed. Raises ValueError where two are of the same."""
    found: dict[tuple[str, int], float] = {}
    for row in rows:
        key = (row["task"], int(row["seed"]))
        if key in found:
            raise ValueError(f"two rows of task {key[0]} and seed {key[1]}; name what tells them apart")
        found[key] = float(row["value"])
    return found


def every_seed(values: Values, seeds: Iterable[int]) -> dict[tuple[str, int], float]:
    """What has no seed, such as the base as it is, as every seed's."""
    return {(task, seed): value for (task, _), value in values.items() for seed in seeds}


def mean(several: Sequence[Values]) -> dict[tuple[str, int], float]:
    """The mean of several kinds of run, where all of them were run."""
    shared = set.intersection(*(set(each) for each in several)) if several else set()
    return {key: sum(each[key] for each in several) / len(several) for key in shared}


def strata(values: Values) -> list[list[float]]:
    """A stratum a task, in the order of seeds; what `statistics` takes."""
    return [[values[key] for key in sorted(values) if key[0] == task] for task in sorted({task for task, _ in values})]


def difference(first: Values, second: Values, *, margin: float = 0.0) -> statistics.Estimate | None:
    """The first less the second, plus a margin, over what was run for both; None where there is nothing."""
    shared = set(first) & set(second)
    if not shared:
        return None
    return statistics.difference(strata({key: first[key] + margin for key in shared}), strata({key: second[key] for key in shared}))
