"""The runs of Li and Liang 2021 (arXiv:2101.00190) in miniature: python -m experiments.prefix2021.sweep"""

import pathlib

from experiments import methods, points

LENGTHS = (1, 20, 80)


def methods_compared() -> list[points.Point]:
    """Tables 1, 3 and 4: prefixes with their networks beside model tuning, adapters and embeddings alone (prompts)."""
    return [point for method in ("prefix", "full", "adapter", "prompt") for point in methods.runs(method)]


def without_network() -> list[points.Point]:
    """Section 4.3: the prefixes trained as they are."""
    return methods.runs("p_tuning_v2")


def low_data() -> list[points.Point]:
    """Figure 3: prefixes and model tuning with few examples."""
    return [point for examples in methods.EXAMPLES[:-1] for method in ("prefix", "full") for point in methods.runs(method, examples)]


def lengths() -> list[points.Point]:
    """Figure 4: prefixes by length."""
    found = []
    for length in LENGTHS:
        if length != 20:  # configs/runs/mini.gin.
            found += methods.runs("prefix", factors={"length": length}, bindings={"PROMPT_LENGTH": str(length)})
    return found


def every() -> list[points.Point]:
    """All points of the paper."""
    return methods_compared() + without_network() + low_data() + lengths()


if __name__ == "__main__":
    points.main(every(), pathlib.Path(__file__).parent, doc=__doc__)
