"""The runs of Houlsby et al. 2019 (arXiv:1902.00751) in miniature: python -m experiments.houlsby2019.sweep"""

import pathlib

from experiments import methods, points

WIDTHS = (8, 64)


def widths() -> list[points.Point]:
    """Figure 4: adapters by width, beside layer norms alone and model tuning."""
    found = [point for method in ("adapter", "norms", "full") for point in methods.runs(method)]
    for width in WIDTHS:
        if width != 64:  # configs/methods/adapter.gin.
            found += methods.runs("adapter", factors={"width": width}, bindings={"adapter.Adapter.width": str(width)})
    return found


def few() -> list[points.Point]:
    """Adapters and model tuning with few examples."""
    return methods.runs("adapter", methods.FEW) + methods.runs("full", methods.FEW)


def every() -> list[points.Point]:
    """All points of the paper."""
    return widths() + few()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
