"""The runs of Asai et al. 2022, "ATTEMPT" (arXiv:2205.11961), in miniature: python -m experiments.attempt2022.sweep

Source prompts, and prompts from scratch to set it beside, are those of experiments/spot2022.
"""

import pathlib

from experiments import mini, points
from experiments.spot2022 import sweep as spot

# As many steps a task as the targets have that are tuned one by one.
TOGETHER_STEPS = len(spot.TARGETS) * int(spot.FEW["TRAIN_STEPS"])


def alone(task: str, seed: int) -> points.Point:
    """A target's prompt on top of the mixture of the sources'."""
    bindings = {"SOURCE_PROMPTS": spot.source_prompts(), "NUM_TASKS": "1"}
    return spot.few(task, seed, method="attempt", bindings=bindings, after=spot.sources())


def together(seed: int) -> points.Point:
    """The prompts of all targets in one run, which share the attention."""
    bindings = {
        **spot.FEW,
        "SOURCE_PROMPTS": spot.source_prompts(),
        "NUM_TASKS": str(len(spot.TARGETS)),
        "TRAIN_STEPS": str(TOGETHER_STEPS),
    }
    tests: points.Tests = {"test": {}}
    return mini.point(spot.BASE, "attempt", spot.TARGETS, seed, factors={"few": 64}, bindings=bindings, after=spot.sources(), tests=tests)


def every() -> list[points.Point]:
    """All points of the paper."""
    found = []
    for seed in mini.SEEDS:
        found += [spot.scratch(task, seed) for task in spot.TARGETS]
        found += [spot.few(task, seed, method="full") for task in spot.TARGETS]
        found += [alone(task, seed) for task in spot.TARGETS]
        found.append(together(seed))
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
