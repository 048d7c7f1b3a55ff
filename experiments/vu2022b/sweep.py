"""The runs of Vu et al. 2022b (arXiv:2205.12647) in miniature: python -m experiments.vu2022b.sweep

Trained on English conclusions, tested on English and on Tavi ones; `spoken` is how much of what was written is Tavi.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import mini, points
from experiments.vu2022b import conclusions

BASES = mini.BASES[:4]
MIDDLE = "t5_mini"
LENGTHS = (1, 20, 100)
TESTS: points.Tests = {"english": {"language": "english"}, "tavi": {"language": "tavi"}}


def point(base: str, method: str, seed: int, *, length: int = 20, language: str = "english", **changes: Any) -> points.Point:
    """A method trained on conclusions in a language and tested in both."""
    factors: dict[str, Any] = {"language": language}
    bindings: dict[str, str] = {"LANGUAGE": repr(language)}
    if method == "prompt":
        factors["length"] = length
        bindings["PROMPT_LENGTH"] = str(length)
    return mini.point(
        base,
        method,
        conclusions.Conclusions().task_names,
        seed,
        factors=factors | changes.pop("factors", {}),
        bindings=bindings,
        gin_files=("configs/papers/vu2022b/mini.gin",),
        tests=TESTS,
        measures={"spoken": spoken},
        **changes,
    )


def spoken(point: points.Point, loaded: Any, folder: pathlib.Path) -> Mapping[str, Mapping[str, float]]:
    """By task, the share of Tavi in what a run wrote on each of its tests."""
    del loaded
    found: dict[str, dict[str, float]] = {}
    for test in point.tests:
        by_task: dict[str, list[float]] = {}
        for line in (folder / f"test-{test}-predictions.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            by_task.setdefault(row["task"], []).append(conclusions.tavi_share(row["prediction"]))
        for task, shares in by_task.items():
            found.setdefault(task, {})[f"tavi_share_{test}"] = sum(shares) / len(shares)
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    found = [point(base, "full", 0, factors={"as_it_is": "yes"}, trained=False) for base in BASES]
    for base in BASES:
        for seed in mini.SEEDS:
            found += [point(base, method, seed) for method in ("prompt", "full")]
    for seed in mini.SEEDS:
        found += [point(MIDDLE, "prompt", seed, length=length) for length in LENGTHS if length != 20]
        # What tuning on Tavi itself would reach.
        found.append(point(MIDDLE, "prompt", seed, language="tavi"))
    return found


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
