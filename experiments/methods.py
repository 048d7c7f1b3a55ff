"""The runs that the papers on tuning methods share: each method on the same tasks, with all examples and with few."""

from collections.abc import Mapping
from typing import Any

from experiments import mini
from experiments.points import Point

BASE = "t5_mini"
# Three of the suite whose clusters no instruction tuning of the papers in miniature trains on.
TASKS = ("arithmetic_change", "fact_town_choice", "paraphrase_choice")
FEW, SOME, ALL = 16, 256, 2000
EXAMPLES = (FEW, SOME, ALL)


def runs(
    method: str,
    examples: int = ALL,
    *,
    base: str = BASE,
    tasks: tuple[str, ...] = TASKS,
    factors: Mapping[str, Any] | None = None,
    bindings: Mapping[str, str] | None = None,
) -> list[Point]:
    """A run of the method for each task and seed.

    Args:
      method: a file of configs/methods.
      examples: the first so many of a task's training rows, the same for every seed.
      base: one of mini.BASES.
      tasks: trained on one by one.
      factors: what tells them from the method's other runs.
      bindings: beyond those of configs/runs/mini.gin.
    """
    fewer = examples != ALL
    told = {**({"examples": examples} if fewer else {}), **(factors or {})}
    values = {**({"NUM_TRAIN": str(examples)} if fewer else {}), **(bindings or {})}
    return [mini.point(base, method, task, seed, factors=told, bindings=values) for task in tasks for seed in mini.SEEDS]


def frozen(*, base: str = BASE, tasks: tuple[str, ...] = TASKS) -> list[Point]:
    """The base as it is, on each task."""
    return [mini.frozen(base, task) for task in tasks]
