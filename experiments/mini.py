"""What the papers in miniature share: bases, tasks, seeds, and the points made of them."""

from collections.abc import Mapping
from typing import Any

from experiments.points import Point, Tests

# Of 90, 460, 1,900, 3,700 and 7,600 thousand parameters, pretrained alike (experiments/bases).
BASES = ("t5_100k", "t5_500k", "t5_2m", "t5_mini", "t5_8m")
SEEDS = (0, 1, 2)
# Five classification tasks of five clusters, on which a prompt does better than chance and not as well as can be.
SUITE = ("arithmetic_change", "fact_town_choice", "paraphrase_choice", "sentiment_review", "story_who")
IN_AND_OUT: Tests = {"test": {}, "out": {"domain": "out"}}
# Parameters of each base, for figures: `tests/experiments/test_papers.py` counts them.
PARAMETERS = {"t5_100k": 90_432, "t5_500k": 459_648, "t5_2m": 1_935_616, "t5_mini": 3_739_008, "t5_8m": 7_607_808}


def point(
    base: str,
    method: str,
    task: str | tuple[str, ...],
    seed: int,
    *,
    factors: Mapping[str, Any] | None = None,
    bindings: Mapping[str, str] | None = None,
    gin_files: tuple[str, ...] = (),
    tests: Tests = IN_AND_OUT,
    after: Mapping[str, Point] | None = None,
    **changes: Any,
) -> Point:
    """A method tuned on one task of the world, or on several at once.

    Args:
      base: one of BASES.
      method: a file of configs/methods.
      task: a name, or a tuple of names trained as one mixture.
      seed: of the run.
      factors: what tells it from others of this base, method, task and seed.
      bindings: beyond those of configs/runs/mini.gin.
      gin_files: after the common ones.
      tests: see `Point`.
      after: see `Point`.
      changes: other fields of `Point`.
    """
    tasks = (task,) if isinstance(task, str) else task
    told = {"base": base, "method": method, "trained_on": task if isinstance(task, str) else f"mixture_of_{len(tasks)}"}
    files = (f"configs/models/{base}.gin", f"configs/methods/{method}.gin", "configs/data/world.gin", "configs/runs/mini.gin", *gin_files)
    values = {"SEED": str(seed), "TASKS": repr(tasks), **(bindings or {})}
    return Point({**told, **(factors or {}), "seed": seed}, files, values, tests=tests, after=after or {}, **changes)


def frozen(base: str, task: str | tuple[str, ...], *, factors: Mapping[str, Any] | None = None, **changes: Any) -> Point:
    """The base as it is, on the test rows of tasks; arguments as of `point`. It has no seed: nothing of it is drawn."""
    return point(base, "full", task, 0, factors={**(factors or {}), "as_it_is": "yes"}, trained=False, **changes)
