"""Which literals may be bound to which fields."""

import collections.abc
import dataclasses
from typing import Any, Literal, Protocol

import pytest

from prompt_tuning import fields


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1


class Source(Protocol):
    pass


@pytest.mark.parametrize(
    "value, hint",
    [
        (1, int),
        (1, float),
        (1.5, float | None),
        (None, float | None),
        ("a", Literal["a", "b"]),
        ((1, 2), tuple[int, int]),
        ([1, 2], tuple[int, ...]),
        ((), tuple[str, ...]),
        ("one", tuple[str, ...]),
        (["a"], collections.abc.Sequence[str]),
        ({"a": 1}, dict[str, int]),
        (True, bool),
        (3, Any),
        (None, Source),
        (("a", "b"), Literal["all"] | tuple[str, ...]),
    ],
)
def test_fits(value, hint):
    assert fields.fits(value, hint)


@pytest.mark.parametrize(
    "value, hint",
    [
        (1.0, int),
        (True, int),
        (True, float),
        ("1", int),
        (None, int),
        ("c", Literal["a", "b"]),
        ((1, 2, 3), tuple[int, int]),
        ((1, "x"), tuple[int, ...]),
        (3, tuple[str, ...]),
        (1, bool),
        (3, Inner),
        ("text", Inner | None),
        ([1], dict[str, int]),
    ],
)
def test_does_not_fit(value, hint):
    assert not fields.fits(value, hint)


def test_opaque_values_are_not_judged():
    assert fields.fits((Inner(), 2), tuple[int, ...], opaque=(Inner,))
    assert not fields.fits((Inner(), 2), tuple[int, ...])


def test_parameters_are_the_fields_or_unknown():
    def open_ended(name: str, **changes: Any) -> None: ...

    assert fields.parameters(Inner) == ["size"]
    assert fields.parameters(open_ended) is None
    assert fields.hints(Inner) == {"size": int}
    assert fields.hints(3) == {}


def test_types_read_plainly():
    assert fields.describe(int) == "int"
    assert fields.describe(float | None) == "float | None"
    assert fields.describe(Literal["a", "b"]) == "Literal['a', 'b']"
