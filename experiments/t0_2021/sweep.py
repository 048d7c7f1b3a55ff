"""The runs of Sanh et al. 2021 (T0, arXiv:2110.08207) in miniature: python -m experiments.t0_2021.sweep"""

import pathlib

from experiments import instructions, mini, points
from experiments.instructions import BASE, held_out

TEMPLATES = (1, 3, 10)  # Of each task; ten is all.
EVERY: points.Tests = {"templates": held_out(every_template=True, num_test=50)}


def templates() -> list[points.Point]:
    """Section 6.2, figure 6: median and spread over the templates of held-out tasks, by how many were trained on."""
    found = [instructions.untuned(BASE, EVERY)]
    for count in TEMPLATES:
        fewer = {} if count == TEMPLATES[-1] else {"templates": count}
        bindings = {"NUM_TEMPLATES": str(count)} if fewer else {}
        found += [instructions.tuned(BASE, seed, factors=fewer, bindings=bindings, tests=EVERY) for seed in mini.SEEDS]
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return templates()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
