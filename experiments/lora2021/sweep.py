"""The runs of Hu et al. 2021 (arXiv:2106.09685) in miniature: python -m experiments.lora2021.sweep"""

import pathlib

from experiments import methods, points

RANKS = (1, 8, 32)
# Which matrices, and the rank at which they train as many parameters as queries and values do at rank 8 (table 5).
MATRICES = {"q": ("query", 16), "qkvo": ("query|key|value|out", 4)}


def methods_compared() -> list[points.Point]:
    """Table 4: LoRA beside prompts, prefixes, adapters and model tuning."""
    return [point for method in ("lora", "full", "prompt", "p_tuning_v2", "adapter") for point in methods.runs(method)]


def low_data() -> list[points.Point]:
    """Table 16: with how many examples LoRA leads."""
    compared = ("lora", "full", "prompt", "p_tuning_v2")
    return [point for examples in methods.EXAMPLES[:-1] for method in compared for point in methods.runs(method, examples)]


def ranks() -> list[points.Point]:
    """Table 6: queries and values at several ranks; alpha stays as it is."""
    found = []
    for rank in RANKS:
        if rank != 8:  # configs/methods/lora.gin.
            found += methods.runs("lora", factors={"rank": rank}, bindings={"lora.Lora.rank": str(rank)})
    return found


def matrices() -> list[points.Point]:
    """Table 5: the same number of parameters in other matrices."""
    found = []
    for name, (pattern, rank) in MATRICES.items():
        bindings = {"lora.Lora.rank": str(rank), "lora.Lora.targets": f"('.*/({pattern})',)"}
        found += methods.runs("lora", factors={"matrices": name, "rank": rank}, bindings=bindings)
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return methods_compared() + low_data() + ranks() + matrices()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
