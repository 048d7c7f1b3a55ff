"""The runs of Vu et al. 2022, "SPoT" (arXiv:2110.07904), in miniature: python -m experiments.spot2022.sweep"""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import mini, points

BASE = "t5_mini"
# Of the suite.
TARGETS = ("arithmetic_change", "sentiment_review", "story_who")
# A task of each target's cluster, and two of clusters that no target is of.
SOURCES = ("arithmetic_next", "sentiment_word", "story_where", "inference_opposite", "ordering_first")
FEW = {"NUM_TRAIN": "64", "TRAIN_STEPS": "40", "BATCH_SIZE": "8", "EVAL_STEPS": "40", "NUM_VALIDATION": "50"}
SOURCE = {"TRAIN_STEPS": "100", "NUM_VALIDATION": "50"}
MIXED = {"TRAIN_STEPS": "150", "EVAL_STEPS": "150", "NUM_VALIDATION": "50"}
TOP = 2
_TEST: points.Tests = {"test": {}}


def source(task: str) -> points.Point:
    """A prompt tuned on all of a source task."""
    return mini.point(BASE, "prompt", task, 0, factors={"for": int(SOURCE["TRAIN_STEPS"])}, bindings=SOURCE, tests=_TEST)


def mixed() -> points.Point:
    """One prompt tuned on all source tasks at once."""
    return mini.point(BASE, "prompt", SOURCES, 0, factors={"of": "sources"}, bindings=MIXED, tests=_TEST)


def sources() -> dict[str, points.Point]:
    """All of them by task."""
    return {name: source(name) for name in SOURCES}


def source_prompts() -> str:
    """Their prompts' files, for gin; of points that come after `sources`."""
    paths = [f"'{{{name}}}/prompt.npy'" for name in SOURCES]
    return f"({', '.join(paths)})"


def few(task: str, seed: int, *, method: str = "prompt", factors: Mapping[str, Any] | None = None, **changes: Any) -> points.Point:
    """A method tuned on 64 examples of a target task; arguments beyond those as of `mini.point`."""
    bindings = FEW | changes.pop("bindings", {})
    return mini.point(BASE, method, task, seed, factors={"few": 64, **(factors or {})}, bindings=bindings, tests=_TEST, **changes)


def scratch(task: str, seed: int) -> points.Point:
    """A target's prompt without transfer, begun at tokens of the vocabulary; also how like each source's prompt it is."""
    return few(task, seed, after=sources(), measures={"similarity": _similarity})


def transferred(name: str, task: str, seed: int) -> points.Point:
    """A target's prompt begun at a source's, or at that of their mixture (`mixed`)."""
    begun = {"prompt.Prompt.initializer": "@prompt.File()", "prompt.File.path": "'{source}/prompt.npy'"}
    return few(task, seed, factors={"source": name}, bindings=begun, after={"source": mixed() if name == "mixed" else source(name)})


def retrieved(task: str, seed: int) -> points.Point:
    """A target's prompt begun at the mean of those sources' most like its own, weighted by their likeness (section 3.3)."""
    bindings = {"TARGET_PROMPT": "'{target}/prompt.npy'", "SOURCE_PROMPTS": source_prompts(), "TOP": str(TOP)}
    return few(
        task,
        seed,
        factors={"source": f"top_{TOP}"},
        gin_files=("configs/papers/spot2022/retrieval.gin",),
        bindings=bindings,
        after={"target": scratch(task, 0), **sources()},
    )


def _similarity(point: points.Point, loaded: Any, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """Both similarities of the prompt of a run to those of the sources, by source."""
    import numpy as np

    from prompt_tuning.methods import transfer

    del loaded
    own = np.load(folder / "prompt.npy")
    found = {}
    for name in SOURCES:
        other = np.load(folder.parent / point.after[name].name / "prompt.npy")
        found[name] = {kind: transfer.similarity(own, other, of=kind) for kind in ("mean_rows", "pairs_of_rows")}
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    found = [*sources().values(), mixed()]
    for seed in mini.SEEDS:
        found += [scratch(task, seed) for task in TARGETS]
        found += [transferred(name, task, seed) for name in (*SOURCES, "mixed") for task in TARGETS]
        found += [retrieved(task, seed) for task in TARGETS]
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
