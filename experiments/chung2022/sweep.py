"""The runs of Chung et al. 2022 (Flan-PaLM and Flan-T5, arXiv:2210.11416) in miniature: python -m experiments.chung2022.sweep"""

import pathlib

from experiments import instructions, mini, points
from experiments.flan2021 import sweep as flan2021

# Those on which fewer tasks are tried too.
FEWER_TASKS = mini.BASES[:3]


def tasks_and_sizes() -> list[points.Point]:
    """Figure 4 and table 3: held-out score by number of tasks (clusters are added in turn) and by size; runs of FLAN's figures 6 and 7."""
    found = []
    for base in mini.BASES:
        found.append(instructions.untuned(base, instructions.ZERO_SHOT))
        found += flan2021.clusters(base) if base in FEWER_TASKS else [instructions.tuned(base, seed) for seed in mini.SEEDS]
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return tasks_and_sizes()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
