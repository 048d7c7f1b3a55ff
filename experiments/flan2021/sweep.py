"""The runs of Wei et al. 2021 (FLAN, arXiv:2109.01652) in miniature: python -m experiments.flan2021.sweep"""

import pathlib

from experiments import instructions, mini, points
from experiments.instructions import BASE, ZERO_SHOT, held_out

CLUSTERS = (1, 3, 6)
FORMS = ("none", "name")
# Tasks of clusters that were held out, on which prompts are tuned.
PROMPTED = ("arithmetic_change", "fact_town_choice")
FEW_SHOT: points.Tests = {"few_shot": held_out(exemplars=instructions.EXEMPLARS)}


def clusters(base: str = BASE) -> list[points.Point]:
    """Figure 6: held-out score by number of clusters trained on."""
    return [instructions.tuned(base, seed, clusters=count) for count in CLUSTERS for seed in mini.SEEDS]


def sizes() -> list[points.Point]:
    """Figure 7: held-out score of tuned and untuned bases; the untuned ones are also asked with exemplars, and in the other forms."""
    forms = {form: held_out(form=form) for form in FORMS}
    found = []
    for base in mini.BASES:
        found.append(instructions.untuned(base, {**ZERO_SHOT, **FEW_SHOT, **forms}))
        found += [instructions.tuned(base, seed) for seed in mini.SEEDS]
    return found


def roles() -> list[points.Point]:
    """Figure 8: tuned without a template, with names of tasks, or with instructions; asked by instructions, and as tuned."""
    tests = {form: {**ZERO_SHOT, form: held_out(form=form)} for form in FORMS}
    return [instructions.tuned(BASE, seed, form=form, tests=tests[form]) for form in FORMS for seed in mini.SEEDS]


def few_shot() -> list[points.Point]:
    """Section 4.4: exemplars in tuning and in testing."""
    return [instructions.with_exemplars(BASE, seed, tests=FEW_SHOT) for seed in mini.SEEDS]


def prompts() -> list[points.Point]:
    """Section 4.5: a prompt for a task of a cluster held out, on the tuned and on the plain base, from 32 examples or all."""
    found = []
    for task in PROMPTED:
        for few in (True, False):
            factors = {"examples": 32} if few else {}
            bindings = {"NUM_TRAIN": "32"} if few else {}
            for seed in mini.SEEDS:
                found.append(mini.point(BASE, "prompt", task, seed, factors=factors, bindings=bindings))
                start = instructions.tuned(BASE, seed)
                found.append(
                    mini.point(
                        BASE, "prompt", task, seed, factors={**factors, "start": "instructions"},
                        bindings={**bindings, "BASE_CHECKPOINT": "'{start}/base'"}, after={"start": start},
                    )
                )  # fmt: skip
    return found


def every() -> list[points.Point]:
    """All points of the paper, each once."""
    found = [*sizes(), *clusters(), *roles(), *few_shot(), *prompts()]
    return list({point.name: point for point in found}.values())


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
