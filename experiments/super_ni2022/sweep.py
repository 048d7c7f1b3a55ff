"""The runs of Wang et al. 2022 (Super-NaturalInstructions, arXiv:2204.07705) in miniature: python -m experiments.super_ni2022.sweep"""

import pathlib

from experiments import instructions, mini, points
from experiments.instructions import BASE, held_out

TASKS = (4, 12, 24)
INSTANCES = (8, 32, 64, 500)
SIZES = mini.BASES
_EXAMPLES = {"form": "definition", "exemplars": instructions.EXEMPLARS}
DEFINITION: points.Tests = {"definition": held_out(form="definition")}
ENCODINGS: points.Tests = {"name": held_out(form="name"), **DEFINITION, "definition_and_examples": held_out(**_EXAMPLES)}


def _tuned(base: str, seed: int, *, tasks: int = TASKS[-1], instances: int = INSTANCES[-1]) -> points.Point:
    factors, bindings = {}, {}
    if tasks < TASKS[-1]:
        factors["tasks"], bindings["NUM_TASKS"] = tasks, str(tasks)
        bindings["world.World.seed"] = str(seed)  # Of several draws of tasks none is the luck of all runs.
    if instances < INSTANCES[-1]:
        factors["instances"], bindings["NUM_TRAIN"] = instances, str(instances)
    return instructions.tuned(base, seed, form="definition", factors=factors, bindings=bindings, tests=DEFINITION)


def scaling() -> list[points.Point]:
    """Figure 5: by training tasks, by instances of a task, by size. Told by the definition alone, which is what the short inputs hold."""
    found = [instructions.untuned(base, ENCODINGS) for base in SIZES]
    found += [_tuned(base, seed) for base in SIZES for seed in mini.SEEDS]
    found += [_tuned(BASE, seed, tasks=tasks) for tasks in TASKS[:-1] for seed in mini.SEEDS]
    found += [_tuned(BASE, seed, instances=instances) for instances in INSTANCES[:-1] for seed in mini.SEEDS]
    return found


def encodings() -> list[points.Point]:
    """Table 4: tuned on the task's name, on its definition, on definition and two examples; each tested on all three."""
    found = []
    for seed in mini.SEEDS:
        found += [
            instructions.read(instructions.tuned(BASE, seed, form="name"), ENCODINGS),
            instructions.read(_tuned(BASE, seed), ENCODINGS),
        ]
        found.append(instructions.with_exemplars(BASE, seed, form="definition", tests=ENCODINGS))
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return [*scaling(), *encodings()]


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
