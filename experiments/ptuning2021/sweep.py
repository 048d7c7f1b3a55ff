"""The runs of Liu et al. 2021 (arXiv:2103.10385) in miniature: python -m experiments.ptuning2021.sweep"""

import pathlib

from experiments import methods, points


def networks() -> list[points.Point]:
    """Tables 3 and 4: a prompt that a network makes, beside the base as it is, the prompt alone and model tuning."""
    found = methods.frozen()
    for method in ("p_tuning", "prompt", "full"):
        found += methods.runs(method)
    return found + methods.runs("p_tuning", factors={"network": "mlp"}, bindings={"p_tuning.PTuning.network": "'mlp'"})


def few() -> list[points.Point]:
    """Table 5: with 32 examples."""
    return [point for method in ("p_tuning", "prompt", "full") for point in methods.runs(method, methods.FEW)]


def every() -> list[points.Point]:
    """All points of the paper."""
    return networks() + few()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
