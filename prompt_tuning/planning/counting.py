"""Floating-point operations of a program, counted from its jaxpr."""

import math
from typing import Any


def operations(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products in a jaxpr, those of inner jaxprs times the number of their runs.

    A product [M, K] x [K, N] counts 2 M K N. Attention in one kernel counts as its two products, and as four more in the backward pass:
    what that computes again is not counted. Of the branches of a condition the largest counts; the body of a loop whose length is not
    known counts once.
    """
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            width = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += 2 * width * math.prod(equation.outvars[0].aval.shape)
        if equation.primitive.name.startswith("dot_product_attention"):
            (batch, queries, heads, width), (_, keys, _, _) = (variable.aval.shape for variable in equation.invars[:2])
            total += (8 if "bwd" in equation.primitive.name else 4) * batch * heads * queries * keys * width
        inner = [operations(found) for value in equation.params.values() for found in _jaxprs(value)]
        runs = equation.params.get("length", 1)
        total += runs * (max(inner, default=0) if equation.primitive.name == "cond" else sum(inner))
    return total


def _jaxprs(value: Any) -> list[Any]:
    values = value if isinstance(value, list | tuple) else (value,)
    return [found for each in values if hasattr(found := getattr(each, "jaxpr", each), "eqns")]
