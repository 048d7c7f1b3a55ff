"""The runs of Lester et al. 2022 (arXiv:2208.05577) in miniature: python -m experiments.lester2022.sweep

Its prompts on the bases as they are are those of experiments/khashabi2022; what is made of them is scored without training.
"""

import functools
import pathlib
from typing import Any

from experiments import mini, points
from experiments.khashabi2022 import sweep as khashabi
from experiments.lester2021 import sweep as lester
from experiments.lester2022 import recycling

TASKS = khashabi.TASKS
# The base of 500 thousand parameters as it was after 500 of its steps of LM adaptation: a model before its update.
EARLY = "t5_500k_early"
_EARLY, _EARLY_PRETRAINING = "t5_500k", "lm_500"
# From, to.
PAIRS = (
    (EARLY, "t5_500k"),
    ("t5_500k", EARLY),
    ("t5_500k", "t5_2m"),
    ("t5_2m", "t5_500k"),
    ("t5_2m", "t5_mini"),
)
MAPS = ("linear", "combination", "network")
_TEST: points.Tests = {"test": {}}


@functools.cache
def _early() -> points.Point:
    """The pretraining of the early base."""
    return next(point.after["base"] for point in lester.pretraining() if point.factors["pretraining"] == _EARLY_PRETRAINING)


def tuned(base: str, task: str, seed: int) -> points.Point:
    """A prompt tuned on its own base."""
    return khashabi.free(**_on(base), task=task, seed=seed)


def _on(base: str) -> dict[str, Any]:
    """What says to `mini.point` that a point is on a base."""
    if base != EARLY:
        return {"base": base}
    return {
        "base": _EARLY,
        "factors": {"pretraining": _EARLY_PRETRAINING},
        "bindings": {"BASE_CHECKPOINT": "'{base}/base'"},
        "after": {"base": _early()},
    }


def untuned(base: str, task: str) -> points.Point:
    """The base as it is."""
    return mini.frozen(task=task, tests=_TEST, **_on(base))


def recycled(source: str, target: str, by: str, task: str, seed: int) -> points.Point:
    """A prompt of the source base on the target base, without any training there."""
    told = _on(target)
    told["factors"] = {**told.get("factors", {}), "recycled_from": source, "by": by}
    told["after"] = {**told.get("after", {}), "source": tuned(source, task, seed)}
    measured = {"test": functools.partial(recycling.scores, by=by)}
    return mini.point(method="prompt", task=task, seed=seed, tests={}, measures=measured, trained=False, **told)


def every() -> list[points.Point]:
    """All points of the paper."""
    named = tuple(dict.fromkeys(base for pair in PAIRS for base in pair))
    found = [untuned(base, task) for base in named for task in TASKS]
    for seed in mini.SEEDS:
        found += [tuned(base, task, seed) for base in named for task in TASKS]
        found += [recycled(*pair, by, task, seed) for pair in PAIRS for by in MAPS for task in TASKS]
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
