"""What a literal from a configuration may be bound to: the names a class or function takes, and whether a value fits a field's type."""

import builtins
import collections.abc
import dataclasses
import inspect
import types
import typing
from typing import Any

from prompt_tuning.errors import UserError


def name_of(target: Any) -> str:
    """What a message calls a class, function or module."""
    return str(getattr(target, "__qualname__", None) or getattr(target, "__name__", repr(target)))


def parameters(target: Any) -> list[str] | None:
    """The names that may be bound; None where any may."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values()):
        return None
    return list(signature.parameters)


def hints(target: Any) -> dict[str, Any]:
    """The types of the fields, by name; empty where they cannot be known."""
    try:
        return typing.get_type_hints(target)
    except Exception:  # Names imported for the type checker only: then nothing is checked.
        return {}


def describe(hint: Any) -> str:
    """A type as a message names it."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def fits(value: Any, hint: Any, *, opaque: tuple[type, ...] = ()) -> bool:
    """Whether a literal may stand for a field of this type; what cannot be judged passes: other types, values of classes in `opaque`."""
    if hint is Any or isinstance(value, opaque):
        return True
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg, opaque=opaque) for arg in args)
    if origin is typing.Literal:
        return value in args
    if hint is None or hint is type(None):
        return value is None
    if origin in (tuple, list, collections.abc.Sequence):
        if isinstance(value, str) and args and args[0] is str:
            return True  # Sources take one name where they take several.
        if not isinstance(value, tuple | list):
            return False
        if origin is tuple and args and args[-1] is not Ellipsis:
            return len(value) == len(args) and all(fits(item, arg, opaque=opaque) for item, arg in zip(value, args, strict=True))
        return not args or all(fits(item, args[0], opaque=opaque) for item in value)
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, dict)
    match hint:
        case builtins.bool:
            return isinstance(value, bool)
        case builtins.int:
            return isinstance(value, int) and not isinstance(value, bool)
        case builtins.float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case builtins.str:
            return isinstance(value, str)
        case builtins.tuple | builtins.list:
            return isinstance(value, tuple | list)
        case builtins.dict:
            return isinstance(value, dict)
    # A literal where a dataclass belongs.
    return not dataclasses.is_dataclass(hint) or not isinstance(value, bool | int | float | str | list | dict | tuple | types.NoneType)


def check_count(name: str, value: Any) -> None:
    """Raises UserError, with the field's name, for what is not a whole number of 1 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{name}: wanted a whole number of 1 or more, got {value!r}")
