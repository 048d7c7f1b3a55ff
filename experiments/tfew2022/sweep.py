"""The runs of Liu et al. 2022 (arXiv:2205.05638) in miniature: python -m experiments.tfew2022.sweep"""

import pathlib

from experiments import methods, points

# Table 4, as far as they are among ours.
COMPARED = ("ia3", "lora", "adapter", "p_tuning_v2", "prompt", "full")
# The weights of the unlikelihood and of the loss over length-normalised scores (tables 5 to 7); both stand at 1 in T-Few.
LOSSES = {"unlikelihood": (1, 0), "length-normalised": (0, 1), "neither": (0, 0)}


def methods_compared() -> list[points.Point]:
    """Table 4: each method with few examples; with all of them besides."""
    found = methods.frozen()
    for method in COMPARED:
        found += methods.runs(method, methods.FEW) + methods.runs(method)
    return found


def losses() -> list[points.Point]:
    """Tables 5 to 7: IA3 with the losses of answer choices, both, one of them, or none."""
    found = methods.runs("tfew", methods.FEW)
    for name, (unlikelihood, scores) in LOSSES.items():
        bindings = {"losses.ChoiceLosses.unlikelihood": f"{unlikelihood}.0", "losses.ChoiceLosses.multiple_choice": f"{scores}.0"}
        found += methods.runs("tfew", methods.FEW, factors={"losses": name}, bindings=bindings)
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return methods_compared() + losses()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
