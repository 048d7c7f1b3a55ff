"""Prompt tuning against instruction tuning, and what else there is: python -m experiments.question.sweep

Nine ways to a task, with 16, 256 and 2,000 of its examples, on every base. The ways of `METHODS` are runs that the papers on tuning
methods have too.
"""

import dataclasses
import pathlib
from typing import Any

from experiments import instructions, methods, mini, points
from experiments.points import Point
from experiments.question import prose

AMOUNTS = (16, 256, methods.ALL)
# By file of configs/methods. Prefixes without the network, which is gone after training.
METHODS = ("prompt", "p_tuning_v2", "ia3", "lora", "full")
# Those that the methods are compared on, of clusters that instruction tuning leaves out.
TASKS = methods.TASKS
EXEMPLARS = 4
FIRST = (methods.BASE,)
_ASKED: dict[str, Any] = {"task_list": TASKS, "clusters": (), "held_out": (), "num_tasks": None}


def tuned(base: str) -> list[Point]:
    """Each method on each task, with each number of examples."""
    return [
        _measured(point) for method in METHODS for examples in AMOUNTS for point in methods.runs(method, examples, base=base, tasks=TASKS)
    ]


def instructed(base: str, seed: int) -> Point:
    """The base tuned on instructions of other clusters' tasks, asked with instructions."""
    tests = {name: {**_ASKED, **fields} for name, fields in mini.IN_AND_OUT.items()}
    return dataclasses.replace(instructions.tuned(base, seed, tests=tests), measures={"prose": prose.loss})


def prompts_on_instructed(base: str) -> list[Point]:
    """Prompts of each task, on the instruction-tuned base of the same seed."""
    found = []
    for examples in AMOUNTS:
        bindings = {"BASE_CHECKPOINT": "'{start}/base'"}
        for point in methods.runs("prompt", examples, base=base, tasks=TASKS, factors={"start": "instructions"}, bindings=bindings):
            found.append(_measured(dataclasses.replace(point, after={"start": instructed(base, point.factors["seed"])})))
    return found


def frozen(base: str) -> list[Point]:
    """The base as it is, asked with instructions."""
    bindings = {"FORM": "'instructions'", "INPUT_LENGTH": "72"}
    return [mini.frozen(base, TASKS, factors={"form": "instructions"}, bindings=bindings, measures={"prose": prose.loss})]


def few_shot(base: str) -> list[Point]:
    """The base as it is, shown solved examples out of as many as the smallest amount. A seed draws examples and test rows."""
    few = AMOUNTS[0]
    bindings = {"EXEMPLARS": str(EXEMPLARS), "NUM_TRAIN": str(few), "INPUT_LENGTH": "256"}
    return [
        mini.point(
            base,
            "full",
            TASKS,
            seed,
            factors={"examples": few, "exemplars": EXEMPLARS},
            bindings={**bindings, "world.World.seed": str(seed)},
            trained=False,
        )
        for seed in mini.SEEDS
    ]


def _measured(point: Point) -> Point:
    """What is forgotten is measured of the runs with all examples, which are as long as the others and see more."""
    return point if "examples" in point.factors else dataclasses.replace(point, measures={"prose": prose.loss})


def every() -> list[Point]:
    """All points, those of `FIRST` before the others."""
    found = []
    for base in sorted(mini.BASES, key=lambda base: base not in FIRST):
        found += [
            *frozen(base),
            *few_shot(base),
            *(instructed(base, seed) for seed in mini.SEEDS),
            *tuned(base),
            *prompts_on_instructed(base),
        ]
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
