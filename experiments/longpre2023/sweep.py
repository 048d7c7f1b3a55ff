"""The runs of Longpre et al. 2023 (the Flan Collection, arXiv:2301.13688) in miniature: python -m experiments.longpre2023.sweep"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import instructions, mini, points
from experiments.instructions import BASE, EXEMPLARS, held_out

SHARES = (0.0, 0.1, 0.5, 1.0)
BOTH: points.Tests = {"zero_shot": held_out(), "few_shot": held_out(exemplars=EXEMPLARS)}
# Tuned on after the instructions, which held out their clusters.
TARGETS = ("arithmetic_change", "fact_town_choice")
EVERY_STEPS = 20


def mixed() -> list[points.Point]:
    """Section 3.2, figure 4: zero-shot and few-shot score by the share of training rows with exemplars."""
    found = [instructions.untuned(BASE, BOTH)]
    for seed in mini.SEEDS:
        found.append(instructions.read(instructions.tuned(BASE, seed), BOTH))
        found += [instructions.with_exemplars(BASE, seed, share=share, tests=BOTH) for share in SHARES[1:]]
    return found


def by_step(point: points.Point, experiment: Any, folder: pathlib.Path) -> Mapping[str, Mapping[str, float]]:
    """Accuracy on the validation rows after each EVERY_STEPS steps: tasks are called `TASK@STEP`."""
    (task,) = experiment.data.task_names
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {f"{task}@{row['step']}": {"accuracy": row[f"{task}/accuracy"]} for row in rows if row["split"] == "validation"}


def targets() -> list[points.Point]:
    """Section 4, figures 5 and 6: model tuning of one task, from the plain base and from the one tuned on instructions."""
    found = []
    common: dict[str, Any] = {"tests": {"test": {}}, "measures": {"validation": by_step}}
    bindings = {"TRAIN_STEPS": "200", "EVAL_STEPS": str(EVERY_STEPS)}
    for task in TARGETS:
        for seed in mini.SEEDS:
            factors = {"steps_told": f"every_{EVERY_STEPS}"}
            found.append(mini.point(BASE, "full", task, seed, factors=factors, bindings=bindings, **common))
            start = instructions.tuned(BASE, seed)
            factors["start"] = "instructions"
            own = {**bindings, "BASE_CHECKPOINT": "'{start}/base'"}
            found.append(mini.point(BASE, "full", task, seed, factors=factors, bindings=own, after={"start": start}, **common))
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return [*mixed(), *targets()]


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
