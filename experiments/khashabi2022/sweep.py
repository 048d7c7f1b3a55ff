"""The runs of Khashabi et al. 2022 (arXiv:2112.08348) in miniature: python -m experiments.khashabi2022.sweep

For each task three texts of the prompt's length: its own definition, that of another task, and prose on something else.
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import mini, points
from experiments.spot2022 import sweep as spot
from prompt_tuning.data.world import definitions

BASE = "t5_mini"
TASKS = spot.TARGETS
SIZES = mini.BASES[1:4]
SHORT = {"TRAIN_STEPS": "200", "BATCH_SIZE": "8", "NUM_VALIDATION": "50"}
# The paper's.
GAMMA = 0.01
GAMMAS = (0.0, 0.01, 1.0)
TEXTS = ("own", "other", "prose")
_PROSE = "Mara saw a horse at the river. Tom was at home and read the paper. Then the bell was heard, and nobody knew where it was."
_TEST: points.Tests = {"test": {}}


def text(task: str, which: str) -> str:
    """The text that a prompt is to project to; of at least as many tokens as a prompt has rows, which take the first."""
    others = TASKS
    named = {"own": task, "other": others[(others.index(task) + 1) % len(others)]}
    said = definitions.of(named[which]) if which in named else _PROSE
    return f"{said} {said}"


def wayward(base: str, task: str, seed: int, *, which: str, gamma: float = GAMMA) -> points.Point:
    """A prompt that begins at a text, and pays for leaving it."""
    bindings = {
        "wayward.Wayward.initializer": "@prompt.String()",
        "prompt.String.text": repr(text(task, which)),
        "wayward.Wayward.gamma": str(gamma),
    }
    measured = {"projection": functools.partial(_projection, which=which, task=task)}
    factors = {"for": int(SHORT["TRAIN_STEPS"]), "text": which, "gamma": gamma}
    return mini.point(base, "wayward", task, seed, factors=factors, bindings=SHORT | bindings, tests=_TEST, measures=measured)


def free(base: str, task: str, seed: int, **changes: Any) -> points.Point:
    """A prompt that is held to nothing; changes as of `mini.point`."""
    factors = {"for": int(SHORT["TRAIN_STEPS"]), **changes.pop("factors", {})}
    bindings = SHORT | changes.pop("bindings", {})
    return mini.point(base, "prompt", task, seed, factors=factors, bindings=bindings, tests=_TEST, **changes)


def _projection(point: points.Point, loaded: Any, folder: pathlib.Path, *, which: str, task: str) -> Mapping[str, Mapping[str, float]]:
    """How much of the text the run's prompt projects to, and how far it went from it."""
    import numpy as np

    from experiments.khashabi2022 import projection
    from prompt_tuning import assembly

    del point
    prompt = np.load(folder / "prompt.npy")
    ids = list(loaded.vocabulary.load().encode(text(task, which)))[: len(prompt)]
    table = np.asarray(assembly.assemble(loaded).frozen["embed"]["embedding"], np.float32)
    near = projection.nearest_tokens(prompt, table)
    return {task: {"token_f1": projection.token_f1(near, ids), "squared_distance": projection.squared_distance(prompt, table[ids])}}


def every() -> list[points.Point]:
    """All points of the paper."""
    found = []
    for seed in mini.SEEDS:
        for task in TASKS:
            found += [free(base, task, seed) for base in SIZES]
            found += [wayward(base, task, seed, which="other") for base in SIZES]
            found += [wayward(BASE, task, seed, which=which) for which in TEXTS if which != "other"]
            found += [wayward(BASE, task, seed, which="other", gamma=gamma) for gamma in GAMMAS if gamma != GAMMA]
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
