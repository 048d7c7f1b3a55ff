"""The names, nouns and numbers that the clusters `words`, `arithmetic` and `ordering` share: some for each domain, none for both."""

import random
from collections.abc import Mapping, Sequence

from prompt_tuning.data.world.task import Domain

NAMES: Mapping[Domain, tuple[str, ...]] = {
    "in": ("Mara", "Tom", "Lena", "Ben", "Nora", "Sam", "Ada", "Max", "Ruth", "Paul"),
    "out": ("Ivy", "Leo", "Rosa", "Hugo", "Dora", "Finn", "Kate", "Carl"),
}
WOMEN = frozenset(("Mara", "Lena", "Nora", "Ada", "Ruth", "Ivy", "Rosa", "Dora", "Kate"))

NOUNS: Mapping[Domain, tuple[str, ...]] = {
    "in": (
        *("lamp", "stone", "river", "chair", "apple", "bread", "cloud", "table", "window", "horse", "letter", "garden"),
        *("flower", "spoon", "bridge", "mirror", "paper", "clock", "forest", "basket", "candle", "blanket"),
    ),
    "out": (
        *("ladder", "button", "pepper", "island", "feather", "hammer", "kettle", "pillow", "rabbit", "tunnel"),
        *("violin", "jacket", "lemon", "barrel"),
    ),
}

# Things that are counted: (one, many).
THINGS: Mapping[Domain, tuple[tuple[str, str], ...]] = {
    "in": (("apple", "apples"), ("stone", "stones"), ("letter", "letters"), ("spoon", "spoons"), ("coin", "coins"), ("book", "books")),
    "out": (("lemon", "lemons"), ("button", "buttons"), ("card", "cards"), ("egg", "eggs"), ("shell", "shells")),
}

NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)


def people(rng: random.Random, domain: Domain, count: int) -> list[str]:
    """`count` different names."""
    return rng.sample(NAMES[domain], count)


def pronoun(name: str) -> str:
    """`she` or `he`."""
    return "she" if name in WOMEN else "he"


def listed(words: Sequence[str], *, style: int) -> str:
    """Words as a list in prose: `a, b, c` (style 0) or `a, b and c` (style 1)."""
    return ", ".join(words) if style == 0 else f"{', '.join(words[:-1])} and {words[-1]}"


def counted(number: int, thing: tuple[str, str]) -> str:
    """A number and its thing: `one apple`, `four apples`, `zero apples`."""
    return f"{NUMBERS[number]} {thing[0] if number == 1 else thing[1]}"


def capital(text: str) -> str:
    """The text with a capital in front."""
    return text[0].upper() + text[1:]
