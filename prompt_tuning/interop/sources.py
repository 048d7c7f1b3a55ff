"""Filling a model's parameters from the entries of a checkpoint, with every parameter and every entry accounted for.

A format gives a `Source` (what entries there are, how to read one) and a `Recipe` a parameter (which entries it is made of, and how).
Shapes are checked before anything large is read.
"""

import dataclasses
import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from prompt_tuning.errors import UserError

Shape = tuple[int, ...]
Convert = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint whose entries can be read one at a time.

    Attributes:
      where: its path, for messages.
      shapes: of its entries, by name.
      read: gives the values of an entry; raises UserError if they cannot be read.
      file_of: the name of the file, relative to `where`, that holds an entry.
    """

    where: str
    shapes: Mapping[str, Shape]
    read: Callable[[str], np.ndarray]
    file_of: Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a parameter comes from entries.

    Attributes:
      entries: names; one, or one a layer (and expert) if `per_layer`.
      accepts: by the shape an entry may have: what makes the parameter of it, or the layer's part.
      per_layer: the parameter is the entries' parts stacked on a new first axis, or on several, the last of which changes fastest.
      label: stands for all entries in the table of sources.
    """

    entries: tuple[str, ...]
    accepts: Mapping[Shape, Convert]
    per_layer: bool = False
    label: str = ""


def is_layered(name: str) -> bool:
    """Whether a parameter of ours holds all layers of a stack on its first axis."""
    return name.split("/")[1:2] == ["layers"]


def names_and_shapes(abstract_params: Any) -> dict[str, Any]:
    """The leaves of a tree of parameters by "/"-joined path; a flat dictionary of such names stays as it is."""
    leaves = jax.tree_util.tree_flatten_with_path(abstract_params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def check(source: Source, recipes: Mapping[str, Recipe], *, copies: Mapping[str, str] | None = None) -> dict[str, str]:
    """Accounts for every parameter and every entry, reading no values; `copies` as for `fill`.

    Returns:
      By parameter name, "file:entry" that it comes from.

    Raises:
      UserError: a parameter without its entry, an entry that no parameter uses, a wrong shape.
    """
    used: set[str] = set()
    for name, recipe in recipes.items():
        for entry in recipe.entries:
            _check_entry(source, name, entry, recipe)
            used.add(entry)
    unused = sorted(set(source.shapes) - used - set(copies or {}))
    if unused:
        raise UserError(
            f"unused checkpoint entry: {unused[0]} {list(source.shapes[unused[0]])} in {source.where} fills no parameter of this model "
            f"({len(unused)} such): is it another architecture (gated, tied, number of layers)? set the model's fields to match"
        )
    return {name: f"{source.file_of(recipe.entries[0])}:{recipe.label or recipe.entries[0]}" for name, recipe in recipes.items()}


def fill(
    source: Source, recipes: Mapping[str, Recipe], abstract: Mapping[str, Any], *, copies: Mapping[str, str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads every parameter.

    Args:
      source: the checkpoint.
      recipes: one for each name in `abstract`.
      abstract: shape and dtype by parameter name; values are converted to the dtype.
      copies: entries that repeat another one, by name, and must be equal to it; an entry that repeats itself is known to be superfluous.

    Returns:
      Values by parameter name, and what `check` returns.

    Raises:
      UserError: as `check`; a copy that differs; values that cannot be read or are no floating-point numbers.
    """
    origins = check(source, recipes, copies=copies)
    check_copies(source, copies or {})
    values = {}
    for name, recipe in recipes.items():
        parts = list(pieces(source, name, recipe))
        value = np.stack(parts).reshape(abstract[name].shape) if recipe.per_layer else parts[0]
        values[name] = np.ascontiguousarray(value, dtype=np.dtype(abstract[name].dtype))
        assert value.shape == tuple(abstract[name].shape), name
    return values, origins


def check_copies(source: Source, copies: Mapping[str, str]) -> None:
    """Raises UserError for an entry that differs from the one it should repeat; `copies` as for `fill`."""
    for copy, original in copies.items():
        if copy != original and not equal(source, copy, original):
            raise UserError(f"the checkpoint contradicts itself: {copy} in {source.where} should repeat {original}, it differs")


def equal(source: Source, one: str, other: str) -> bool:
    """Whether two entries have the same values. One at a time is in memory: they are the largest of a model."""
    return _digest(source.read(one)) == _digest(source.read(other))


def _digest(value: np.ndarray) -> tuple[Shape, bytes]:
    digest = hashlib.sha256()
    for row in value.reshape(-1, value.shape[-1]) if value.size else ():
        digest.update(np.asarray(row, np.float32).tobytes())
    return value.shape, digest.digest()


def pieces(source: Source, name: str, recipe: Recipe) -> Iterator[np.ndarray]:
    """A parameter entry by entry, read when asked for; the pieces one after the other are the whole."""
    return (_part(source, name, entry, recipe) for entry in recipe.entries)


def _check_entry(source: Source, name: str, entry: str, recipe: Recipe) -> None:
    if entry not in source.shapes:
        near = difflib.get_close_matches(entry, source.shapes, 1)
        raise UserError(
            f"missing parameter: {name} comes from {entry}, which {source.where} does not hold"
            + (f" (nearest: {near[0]})" if near else "")
            + ": set the model's fields (gated, tied, number of layers) to those of the checkpoint, or give a whole checkpoint"
        )
    shape = source.shapes[entry]
    if shape in recipe.accepts:
        return
    wanted = " or ".join(str(list(accepted)) for accepted in recipe.accepts)
    advice = "set the model's sizes to those of the checkpoint"
    if name in ("embed/embedding", "head/kernel"):
        accepted = next(iter(recipe.accepts))
        [axis] = [i for i, (a, b) in enumerate(zip(accepted, shape, strict=False)) if a != b] or [0]
        if len(shape) == 2 and max(accepted) == accepted[axis]:
            word = "smaller" if shape[axis] < accepted[axis] else "larger"
            advice = f"the checkpoint's vocabulary ({shape[axis]}) is {word} than the model's ({accepted[axis]}): set vocab_size"
    raise UserError(f"wrong shape: {name} comes from {entry} in {source.where}: wanted {wanted}, got {list(shape)}: {advice}")


def _part(source: Source, name: str, entry: str, recipe: Recipe) -> np.ndarray:
    value = source.read(entry)
    # ml_dtypes' bfloat16 is not a NumPy floating type, so the test is for what is surely wrong.
    if np.issubdtype(value.dtype, np.integer) or np.issubdtype(value.dtype, np.bool_) or value.dtype.hasobject:
        raise UserError(f"wrong dtype: {name} comes from {entry} in {source.where}: wanted floating-point numbers, got {value.dtype}")
    return recipe.accepts[source.shapes[entry]](value)
