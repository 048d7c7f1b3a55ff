"""The runs of Liu et al. 2022 (arXiv:2110.07602) in miniature: python -m experiments.ptuning_v2_2022.sweep"""

import pathlib

from experiments import methods, mini, points

BASES = mini.BASES[:4]
LENGTHS = (1, 20, 80)


def sizes() -> list[points.Point]:
    """Tables 2 and 3: deep prompts, prompts in the input alone, and model tuning, by size of the base."""
    return [point for base in BASES for method in ("p_tuning_v2", "prompt", "full") for point in methods.runs(method, base=base)]


def lengths() -> list[points.Point]:
    """By length."""
    found = []
    for length in LENGTHS:
        if length != 20:  # configs/runs/mini.gin.
            found += methods.runs("p_tuning_v2", factors={"length": length}, bindings={"PROMPT_LENGTH": str(length)})
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return sizes() + lengths()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
