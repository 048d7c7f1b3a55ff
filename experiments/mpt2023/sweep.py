"""The runs of Wang et al. 2023, "MPT" (arXiv:2303.02861), in miniature: python -m experiments.mpt2023.sweep

Teachers, and prompts from scratch to set it beside, are those of experiments/spot2022.
"""

import pathlib

from experiments import mini, points
from experiments.attempt2022 import sweep as attempt
from experiments.spot2022 import sweep as spot

_TEST: points.Tests = {"test": {}}


def shared(*, taught: bool) -> points.Point:
    """Source training: the shared prompt and the vectors of all source tasks, with their own prompts as teachers or without."""
    bindings = {**spot.MIXED, "NUM_TASKS": str(len(spot.SOURCES))}
    if taught:
        bindings["mpt.MPT.teachers"] = spot.source_prompts()
    factors = {"taught": "yes" if taught else "no"}
    after = spot.sources() if taught else {}
    return mini.point(spot.BASE, "mpt", spot.SOURCES, 0, factors=factors, bindings=bindings, after=after, tests=_TEST)


def alone(task: str, seed: int, *, taught: bool = True) -> points.Point:
    """A target adapted from the source training."""
    factors = {"taught": "yes" if taught else "no"}
    bindings = {"MPT_SOURCE": "'{source}'", "NUM_TASKS": "1"}
    return spot.few(task, seed, method="mpt", factors=factors, bindings=bindings, after={"source": shared(taught=taught)})


def together(seed: int) -> points.Point:
    """All targets adapted in one run, which share the prompt and have vectors of their own."""
    bindings = {**spot.FEW, "MPT_SOURCE": "'{source}'", "NUM_TASKS": str(len(spot.TARGETS)), "TRAIN_STEPS": str(attempt.TOGETHER_STEPS)}
    factors = {"few": 64, "taught": "yes"}
    after = {"source": shared(taught=True)}
    return mini.point(spot.BASE, "mpt", spot.TARGETS, seed, factors=factors, bindings=bindings, after=after, tests=_TEST)


def every() -> list[points.Point]:
    """All points of the paper."""
    found = [shared(taught=taught) for taught in (True, False)]
    for seed in mini.SEEDS:
        found += [spot.scratch(task, seed) for task in spot.TARGETS]
        for taught in (True, False):
            found += [alone(task, seed, taught=taught) for task in spot.TARGETS]
        found.append(together(seed))
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
