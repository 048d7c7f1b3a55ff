"""The words of the story clusters (comprehension, facts, extraction, summarising), apart for the two domains."""

import dataclasses
from typing import NamedTuple

from prompt_tuning.data.world.task import Domain


class Person(NamedTuple):
    """A first name with its pronouns."""

    name: str
    she: str
    her: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _people(women: str, men: str) -> tuple[Person, ...]:
    return tuple(Person(name, "she", "her") for name in women.split()) + tuple(Person(name, "he", "his") for name in men.split())


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """The words of one domain: people, and nouns and names by kind. Words of two domains never coincide."""

    people: tuple[Person, ...]
    things: tuple[str, ...]
    places: tuple[str, ...]
    shops: tuple[str, ...]
    colours: tuple[str, ...]
    days: tuple[str, ...]
    towns: tuple[str, ...]
    jobs: tuple[str, ...]
    kinds: tuple[tuple[str, ...], ...]
    vehicles: tuple[str, ...]


# The order of `Lexicon.kinds`.
KINDS = ("animal", "food", "tool")

LEXICA: dict[Domain, Lexicon] = {
    "in": Lexicon(
        people=_people(
            "Anna Clara Emma Grace Julia Laura Nora Paula Sarah Vera Mary Helen",
            "Ben David Frank Henry Karl Martin Oscar Robert Thomas Walter John Paul",
        ),
        things=_words("key cup book lamp ball coat hat box ring clock basket letter map bell drum pen"),
        places=_words("kitchen garden cellar hall barn attic office bedroom yard shed library garage"),
        shops=_words("market bakery fair store mill"),
        colours=_words("red blue green white black yellow brown"),
        days=("Monday", "Tuesday", "Wednesday", "Thursday"),
        towns=_words("Tarn Velmo Ostra Kerrow Dunby Halden Merrin Solva Brack Norwell Pinford Garth Lindow Escot"),
        jobs=_words("baker teacher farmer doctor miller painter singer tailor driver gardener nurse sailor lawyer cook"),
        kinds=(
            _words("dog cat horse cow wolf bird goat duck"),
            _words("pear cake plum carrot potato pie cheese melon"),
            _words("hammer chisel spade knife rake spoon ladder drill"),
        ),
        vehicles=_words("train bus boat"),
    ),
    "out": Lexicon(
        people=_people("Alice Dora Hanna Lucy Rosa Ruth", "Bruno Felix Ivan Peter Simon George"),
        things=_words("vase flute pillow mirror kettle candle purse glove"),
        places=_words("tower stable chapel workshop pantry tent cabin"),
        shops=_words("bazaar warehouse harbour"),
        colours=_words("purple grey pink orange"),
        days=("Friday", "Saturday", "Sunday"),
        towns=_words("Quill Ambry Fenwick Torvale Undern Wexley Zarrow"),
        jobs=_words("hunter potter weaver barber writer dancer"),
        kinds=(
            _words("pig rabbit fox donkey"),
            _words("bun turnip lemon biscuit"),
            _words("axe shovel broom wrench"),
        ),
        vehicles=_words("tram ferry"),
    ),
}

# Surnames of the people of the facts; two people share each, so that the first name counts too.
SURNAMES: dict[Domain, tuple[str, ...]] = {
    "in": _words(
        """Hobbs Rhodes Ashby Boyle Orton Vernon Abbot Birch Chester Drake Ellis Finch Grover Holt Iverson Jolley Knight Lamb Moss Noble
        Otway Pike Reed Stone Tully Udall"""
    ),
    "out": _words("Voss Ward Young Zeller Amos Bolton Cobb Dyer Engel Frost Gale Hurst Jonas Kemp Lyle Marsh"),
}
