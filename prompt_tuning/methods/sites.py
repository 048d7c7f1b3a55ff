"""Where methods plug in: the modules of a model by name, and a key for each that depends on nothing else.

A module of stacked layers is one site: its arrays have the layers in front, and so must the variables that are plugged into it.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.models.layers import Array

Kind = TypeVar("Kind", bound=nnx.Module)


def modules(model: nnx.Module, kind: type[Kind]) -> dict[str, Kind]:
    """The modules of a kind by name ("/"-joined path), in the order of their names."""
    found = {"/".join(map(str, path)): module for path, module in nnx.iter_modules(model) if isinstance(module, kind)}
    return dict(sorted(found.items()))


def with_socket(model: nnx.Module, socket: str, targets: Sequence[str], *, where: str, beside: str | None = None) -> dict[str, Any]:
    """The modules that have this socket and whose whole name one of the regular expressions `targets` matches.

    `beside` is one more attribute that they must have, and `where` names the setting in messages. Raises UserError for a pattern that is
    none or matches no such module, and for a socket that another method has filled.
    """
    there: dict[str, Any] = {
        name: module for name, module in modules(model, nnx.Module).items() if hasattr(module, socket) and hasattr(module, beside or socket)
    }
    chosen: set[str] = set()
    for pattern in targets:
        try:
            matched = {name for name in there if re.fullmatch(pattern, name)}
        except re.error as error:
            raise UserError(f"{where}: pattern {pattern!r} is not a regular expression: {error}") from error
        if not matched:
            some = ", ".join(list(there)[:3]) or "none: this model has no such layer"
            raise UserError(f"{where}: pattern {pattern!r} matches no layer with a place for it; wanted one for whole names such as {some}")
        chosen |= matched
    if not chosen:
        raise UserError(f"{where} is empty; wanted regular expressions for whole names such as {', '.join(list(there)[:3])}")
    for name in sorted(chosen):
        if (held := getattr(there[name], socket)) is not None:
            raise UserError(f"{where}: {name} already has a {type(held).__name__}; choose other layers")
    return {name: there[name] for name in there if name in chosen}


def key_for(key: Array, name: str) -> Array:
    """A key for what has this name: the same whatever else draws from `key`."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def give_generator(model: nnx.Module, stack: str, generator: nnx.Module, *, refusal: str) -> None:
    """Fills the socket `generator` of the stack of this name. Raises UserError, saying `refusal`, where it has none or it is taken."""
    module: Any = modules(model, nnx.Module)[stack]
    if getattr(module, "generator", generator) is not None:
        raise UserError(refusal)
    module.generator = generator
