"""The one answer to "what is trained": the split of a model into trained and frozen arrays, and the table that says it aloud."""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flax import nnx, traverse_util

from prompt_tuning import text_tables
from prompt_tuning.errors import UserError
from prompt_tuning.models.layers import Fixed, Tunable

# A parameter's name, "/"-joined -> where its value came from.
Sources = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Matching:
    """Parameters whose whole name matches one of these regular expressions, as in `decoder/.*`."""

    patterns: tuple[str, ...]


Which = type[nnx.Variable] | Matching


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the audit table.

    Attributes:
      name, shape, dtype: of the array.
      trained: or frozen.
      source: a checkpoint's path and entry, or an initialiser.
      weights_per_entry: how many parameters an entry of the array stands for: 2 where two share a byte, 0 for scales (`models.quantized`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trained: bool
    source: str
    weights_per_entry: int = 1

    @property
    def size(self) -> int:
        """Number of parameters."""
        return math.prod(self.shape) * self.weights_per_entry

    @property
    def num_bytes(self) -> int:
        """Bytes of the parameters as held in memory."""
        return math.prod(self.shape) * _ITEM_BYTES.get(self.dtype, 4)


_ITEM_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "uint8": 1}


def named_variables(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable]]:
    """Every parameter with its name, in the order of the tree."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        yield "/".join(map(str, path)), variable


def split(model: nnx.Module, which: Which) -> tuple[Any, Any, Any]:
    """`(graphdef, trainable, frozen)` of a model; `nnx.merge` of the three, or of pure trees of the two, is the model again.

    Raises UserError where a pattern matches no parameter, or nothing is trained.
    """
    names = trained_names(model, which)
    graphdef, *states = nnx.split(model, lambda path, _: "/".join(map(str, path)) in names, ...)
    trained, frozen = states
    return graphdef, trained, frozen


def named(tree: Any) -> dict[str, Any]:
    """A nested dict of arrays as a flat one by name ("/"-joined path)."""
    return traverse_util.flatten_dict(tree, sep="/")


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `named`."""
    return traverse_util.unflatten_dict(dict(flat), sep="/")


def trained_names(model: nnx.Module, which: Which) -> frozenset[str]:
    """The names of the trained parameters, none of them `Fixed`; errors as for `split`."""
    variables = {name: variable for name, variable in named_variables(model) if not isinstance(variable, Fixed)}
    if isinstance(which, Matching):
        for pattern in which.patterns:
            if not any(_matches(pattern, name) for name in variables):
                raise UserError(
                    f"trainable pattern {pattern!r} matches no parameter; "
                    f"wanted a regular expression for whole names such as {_some(variables)}"
                )
        names = frozenset(name for name in variables if any(_matches(pattern, name) for pattern in which.patterns))
    else:
        names = frozenset(name for name, variable in variables.items() if isinstance(variable, which))
    if not names:
        wanted = "a pattern" if isinstance(which, Matching) else f"a method that adds {which.__name__} variables"
        raise UserError(f"nothing would be trained: the method trains none of the {len(variables)} parameters; wanted {wanted}")
    return names


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise UserError(f"trainable pattern {pattern!r} is not a regular expression: {error}") from error


def _some(variables: Mapping[str, Any]) -> str:
    return ", ".join(list(variables)[:3])


def audit(model: nnx.Module, which: Which, sources: Mapping[str, str]) -> tuple[Row, ...]:
    """A row for every parameter. Works on an abstract model too. Raises UserError for a parameter whose value came from nowhere."""
    names = trained_names(model, which)
    rows = []
    for name, variable in named_variables(model):
        if name not in sources:
            raise UserError(f"parameter {name!r} was given no value by the checkpoint or the method; wanted every parameter filled")
        value = variable.get_value()
        per_entry = variable.get_metadata().get("weights_per_entry", 1)
        rows.append(Row(name, tuple(value.shape), str(value.dtype), name in names, sources[name], per_entry))
    return tuple(rows)


def totals(rows: tuple[Row, ...]) -> tuple[int, int]:
    """Numbers of trained and of frozen parameters."""
    trained = sum(row.size for row in rows if row.trained)
    return trained, sum(row.size for row in rows) - trained


def table(rows: tuple[Row, ...]) -> str:
    """The audit as text: trained parameters first, then frozen ones, then the totals."""
    lines = [("", "parameter", "shape", "dtype", "bytes", "from")]
    for row in sorted(rows, key=lambda row: not row.trained):
        state = "trained" if row.trained else "frozen"
        lines.append((state, row.name, "x".join(map(str, row.shape)), row.dtype, f"{row.num_bytes:,}", row.source))
    trained, frozen = totals(rows)
    share = trained / max(1, trained + frozen)
    total = f"trained {trained:,} of {trained + frozen:,} parameters ({share:.4%}); frozen {frozen:,}"
    return f"{text_tables.aligned(lines, 'llllrl')}\n{total}"


__all__ = ["Matching", "Row", "Sources", "Tunable", "Which", "audit", "named_variables", "split", "table", "totals", "trained_names"]
