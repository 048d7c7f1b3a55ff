"""What the papers on instruction tuning share in miniature: tuned bases, what they are tested on, and runs that start from them."""

from collections.abc import Mapping
from typing import Any

from experiments.points import Point, Tests

# In the order in which they are added, those of most tasks first (Wei et al. 2021, figure 6); paraphrase is left out with inference.
CLUSTERS = ("extraction", "words", "comprehension", "sentiment", "ordering", "summarising")
TASKS = (5, 10, 14, 18, 21, 24)  # In the first so many of them.
# The tasks of inference, facts and arithmetic that have answer choices: nothing of their clusters is trained on.
TESTED = (
    "inference_kind", "inference_entailment", "inference_opposite", "inference_odd", "fact_town_statement", "fact_town_choice",
    "fact_job_choice", "arithmetic_true", "arithmetic_more", "arithmetic_change", "arithmetic_next",
)  # fmt: skip
# What is not about size is tried on the second smallest base: a run costs a fifth of what it costs on t5_2m.
BASE = "t5_500k"
EXEMPLARS = 2
LONG = {"INPUT_LENGTH": "160"}  # Exemplars are shown while they fit.


def held_out(**fields: Any) -> dict[str, Any]:
    """The test rows of TESTED, 100 of each, told by instructions without exemplars but for what `fields` say."""
    common = {"task_list": TESTED, "clusters": (), "held_out": (), "num_tasks": None, "exemplars": 0, "form": "instructions"}
    return {**common, "num_train": 100, "num_test": 100, "seed": 0, **fields}


ZERO_SHOT: Tests = {"instructions": held_out()}


def tuned(
    base: str,
    seed: int,
    *,
    clusters: int = len(CLUSTERS),
    form: str = "instructions",
    factors: Mapping[str, Any] | None = None,
    bindings: Mapping[str, str] | None = None,
    tests: Tests = ZERO_SHOT,
) -> Point:
    """A base tuned on instructions; its folder's `base` is what others start from.

    Args:
      base: one of mini.BASES.
      seed: of the run.
      clusters: so many of CLUSTERS are trained on.
      form: what rows say of their task; see `World.form`.
      factors: what else tells it from others.
      bindings: beyond these.
      tests: see `Point`.
    """
    told = {"base": base, "method": "full", "trained_on": f"{clusters}_clusters", "form": form, **(factors or {}), "seed": seed}
    values = {
        "SEED": str(seed),
        "CLUSTERS": repr(CLUSTERS[:clusters]),
        "FORM": repr(form),
        "NUM_TRAIN": "500",
        "NUM_VALIDATION": "5",
        "TRAIN_STEPS": "300",
        "EVAL_STEPS": "0",
        "LEARNING_RATE": "3e-3",
        "INPUT_LENGTH": "88" if form == "definition" else "72",
        "experiment.Experiment.save_base": "True",
        **(bindings or {}),
    }
    return Point(told, _files(base), values, tests=tests)


def with_exemplars(base: str, seed: int, *, form: str = "instructions", share: float = 1.0, tests: Tests) -> Point:
    """As `tuned`, where a share of the training rows has solved examples before it (Longpre et al. 2023, section 3.2)."""
    factors: dict[str, Any] = {"exemplars": EXEMPLARS} | ({"few_shot_frac": share} if share < 1 else {})
    bindings = LONG | {"EXEMPLARS": str(EXEMPLARS), "FEW_SHOT_FRAC": str(share)}
    return tuned(base, seed, form=form, factors=factors, bindings=bindings, tests=tests)


def untuned(base: str, tests: Tests, **bindings: str) -> Point:
    """A base as it is, on tests of `held_out`; nothing of it is drawn, so its seed is 0."""
    told = {"base": base, "method": "full", "as_it_is": "yes", "seed": 0}
    return Point(told, _files(base), LONG | bindings, tests=tests, trained=False)


def read(start: Point, tests: Tests) -> Point:
    """A tuned base as it is, on tests whose inputs are longer than those that it was tuned on."""
    *others, (seed, value) = start.factors.items()
    told = {**dict(others), "as_it_is": "yes", seed: value}
    bindings = LONG | {"BASE_CHECKPOINT": "'{start}/base'"}
    return Point(told, start.gin_files, bindings, tests=tests, after={"start": start}, trained=False)


def _files(base: str) -> tuple[str, ...]:
    return (f"configs/models/{base}.gin", "configs/methods/full.gin", "configs/data/world.gin", "configs/papers/flan2021/mini.gin")
