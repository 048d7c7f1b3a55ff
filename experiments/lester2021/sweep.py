"""The runs of Lester et al. 2021 (arXiv:2104.08691) in miniature: python -m experiments.lester2021.sweep"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import mini, points
from experiments.bases.run import LM_STEPS, SPAN_STEPS
from experiments.points import Point

# Three tasks of the suite, of three clusters: those whose inputs in the other domain are not cut.
TASKS = ("arithmetic_change", "fact_town_choice", "sentiment_review")
ALL = "all_three"
LENGTHS = (1, 5, 20, 100)
# On t5_mini a prompt has learnt these tasks by then.
SHORT = {"TRAIN_STEPS": "200", "BATCH_SIZE": "8", "NUM_VALIDATION": "50"}
# With class labels: tasks whose answer choices are the same in every row.
LABELS = {"arithmetic_change": ("fewer", "the same", "more"), "sentiment_review": ("negative", "positive")}
# What the first panels of figure 3 are on; the paper has them on every size and task.
ABLATED, ABLATED_TASKS = ("t5_500k", "t5_mini"), tuple(LABELS)
# The base of the ablations of pretraining, and how long it was adapted in each; LM_STEPS is the bundled one.
ADAPTED, ADAPTED_STEPS = "t5_500k", (0, 500, 1500, 6000, LM_STEPS)
EXEMPLARS = 4
MEMBERS, ENSEMBLED, ENSEMBLED_TASKS = 5, "t5_mini", ("arithmetic_change",)


def tuned(
    base: str,
    method: str,
    task: str | tuple[str, ...],
    seed: int,
    *,
    factors: Mapping[str, Any] | None = None,
    bindings: Mapping[str, str] | None = None,
    **changes: Any,
) -> Point:
    """A short run; arguments as of `mini.point`."""
    told = SHORT | dict(bindings or {})
    return mini.point(base, method, task, seed, factors={"for": int(told["TRAIN_STEPS"]), **(factors or {})}, bindings=told, **changes)


def sizes() -> list[Point]:
    """Figure 1: prompt tuning and model tuning of a task, and model tuning of all tasks at once, by size of the base."""
    found = []
    for base in mini.BASES:
        for seed in mini.SEEDS:
            for method in ("prompt", "full"):
                found += [tuned(base, method, task, seed) for task in TASKS]
            found.append(tuned(base, "full", TASKS, seed, factors={"trained_on": ALL}, bindings={"TRAIN_STEPS": "600"}))
    return found


def few_shot() -> list[Point]:
    """Figure 1: the base as it is, shown solved examples in its input. A seed draws test rows and examples."""
    return [
        mini.point(
            base,
            "full",
            TASKS,
            seed,
            factors={"trained_on": ALL, "exemplars": EXEMPLARS},
            bindings={"EXEMPLARS": str(EXEMPLARS), "INPUT_LENGTH": "144", "world.World.seed": str(seed)},
            tests={"test": {}},
            trained=False,
        )
        for base in mini.BASES
        for seed in mini.SEEDS
    ]


def lengths() -> list[Point]:
    """Figure 3(a): prompts of 1 to 100 vectors; those of 20 are the ones of `sizes`."""
    return [
        tuned(base, "prompt", task, seed, factors={"length": length}, bindings={"PROMPT_LENGTH": str(length)})
        for base in ABLATED
        for length in LENGTHS
        for task in ABLATED_TASKS
        for seed in mini.SEEDS
        if length != 20
    ]


def initialisations() -> list[Point]:
    """Figure 3(b): a prompt that begins from noise or from the class labels; those that begin from any words are the ones of `sizes`."""
    found = []
    for task, labels in LABELS.items():
        ways = {
            "uniform": {"prompt.Prompt.initializer": "@prompt.Uniform()"},
            "labels": {"prompt.Prompt.initializer": "@prompt.ClassLabels()", "prompt.ClassLabels.labels": repr(labels)},
        }
        found += [
            tuned(base, "prompt", task, seed, factors={"begins": way}, bindings=says)
            for base in ABLATED
            for way, says in ways.items()
            for seed in mini.SEEDS
        ]
    return found


def pretraining() -> list[Point]:
    """Figure 3(c, d): prompts on bases of one size that differ in what they were pretrained on, and how long."""
    span, long_span = (_pretrained("span", steps) for steps in (SPAN_STEPS, SPAN_STEPS + LM_STEPS))
    adapted = {steps: _pretrained("lm", steps, after=span) for steps in ADAPTED_STEPS[1:-1]}
    conditions: dict[str, tuple[Point, Mapping[str, Any]]] = {
        "lm_0": (span, {}),
        **{f"lm_{steps}": (base, {}) for steps, base in adapted.items()},
        "span": (long_span, {}),
        "span_and_sentinel": (
            long_span,
            {
                "gin_files": ("configs/papers/lester2021/sentinel.gin",),
                "bindings": {"after_sentinel.AfterSentinel.source": "@world.World()"},
            },
        ),
    }
    found = []
    for name, (base, more) in conditions.items():
        told = {**more, "bindings": {**more.get("bindings", {}), "BASE_CHECKPOINT": "'{base}/base'"}}
        found += [
            tuned(ADAPTED, "prompt", task, seed, factors={"pretraining": name}, tests={"test": {}}, after={"base": base}, **told)
            for task in TASKS
            for seed in mini.SEEDS
        ]
    return found


def _pretrained(objective: str, steps: int, *, after: Point | None = None) -> Point:
    """A base as experiments/bases makes it, that is only trained on."""
    return Point(
        {"base": ADAPTED, "pretraining": objective if after is None else f"{after.factors['pretraining']}_{objective}", "for": steps},
        (f"configs/models/{ADAPTED}.gin", f"configs/runs/pretrain_{objective}.gin"),
        {"BASE_CHECKPOINT": "None" if after is None else "'{base}/base'", "TRAIN_STEPS": str(steps)},
        tests={},
        after={} if after is None else {"base": after},
    )


def ensembles() -> list[Point]:
    """Table 3: prompts of one task that differ in their seed, by themselves and as they vote; no two ensembles share a prompt."""
    found = []
    for task in ENSEMBLED_TASKS:
        for number in mini.SEEDS:
            seeds = range(number * MEMBERS, (number + 1) * MEMBERS)
            members = {f"member{seed}": tuned(ENSEMBLED, "prompt", task, seed) for seed in seeds}
            found.append(
                tuned(
                    ENSEMBLED,
                    "prompt",
                    task,
                    number,
                    factors={"members": MEMBERS},
                    tests={},
                    after=members,
                    measures={"test": vote},
                    trained=False,
                )
            )
    return found


def vote(point: Point, experiment: Any, folder: pathlib.Path) -> dict[str, dict[str, float]]:
    """What the prompts of a point's members score: their mean, the best of them, and all together."""
    from prompt_tuning import ensemble

    prompts = [str(folder.parent / member.name / "prompt.npy") for member in point.after.values()]
    settings = dataclasses.replace(experiment.evaluation, split="test", max_examples=None)
    found = ensemble.scored_prompts(experiment, prompts, settings)
    return {task: {name: values[name] for name in ("mean", "best", "vote")} for task, values in found.items()}


def every() -> list[Point]:
    """All points of the paper, each once."""
    found = [*sizes(), *few_shot(), *lengths(), *initialisations(), *pretraining(), *ensembles()]
    return list({point.name: point for point in found}.values())


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
