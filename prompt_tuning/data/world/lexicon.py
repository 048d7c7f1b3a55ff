"""Names, days and small grammar that several clusters of the world share."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from prompt_tuning.data.world.task import Domain


class Person(NamedTuple):
    """A person of the world: the first name and the subject pronoun."""

    name: str
    pronoun: str


PEOPLE: dict[Domain, tuple[Person, ...]] = {
    "in": tuple(
        Person(name, pronoun) for pronoun, names in (("she", "Anna Dora Emma Mara"), ("he", "Ben Carl Finn Tom")) for name in names.split()
    ),
    "out": tuple(Person(name, pronoun) for pronoun, names in (("she", "Kate Nina Rosa"), ("he", "Leo Paul Sam")) for name in names.split()),
}

DAYS: tuple[str, ...] = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def people(rng: random.Random, domain: Domain, count: int = 1) -> list[Person]:
    """`count` different persons of a domain."""
    return rng.sample(PEOPLE[domain], count)


def with_article(noun: str) -> str:
    """The noun behind `a` or `an`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """The text with a capital in front and a full stop behind (unless it ends in a mark already)."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")


def listing(words: Sequence[str], last: str = "and") -> str:
    """Words joined as prose joins them: `x, y and z`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
