"""The sentences of the arithmetic cluster, by domain, and its words of Tavi."""

from collections.abc import Mapping

from prompt_tuning.data.world.clusters.words_lexicon import NUMBERS, THINGS
from prompt_tuning.data.world.task import Domain
from prompt_tuning.data.world.tavi import Tavi, coin

TAVI = Tavi(
    coin((many for things in THINGS.values() for _, many in things), "noun")
    | coin(("have",), "verb")
    | coin(("true", "false"), "adjective")
    | coin(NUMBERS, "other")
)

# What is claimed of two numbers: (sentence, sign). `first` and `second` are the numbers, `result` what they are said to make.
CLAIMS: Mapping[Domain, tuple[tuple[str, int], ...]] = {
    "in": (
        ("{name} says that {first} plus {second} is {result}.", 1),
        ("{name} has {first} {things} and {other} has {second}, so together they have {result}.", 1),
        ("{name} says that {first} minus {second} is {result}.", -1),
    ),
    "out": (
        ("{name} put {first} {things} to {second} others, which makes {result} in all.", 1),
        ("In the notes of {name}, {first} and {second} make {result}.", 1),
        ("In the notes of {name}, {second} from {first} leaves {result}.", -1),
    ),
}
# One-step stories: (sentences, sign).
STORIES: Mapping[Domain, tuple[tuple[str, int], ...]] = {
    "in": (
        ("{name} had {some}. {Pronoun} gave {second} to {other}.", -1),
        ("{name} had {some}. {Pronoun} lost {second} of them.", -1),
        ("{name} had {some}. {Pronoun} got {second} more from {other}.", 1),
        ("{name} had {some}. {Pronoun} found {second} more.", 1),
    ),
    "out": (
        ("{name} owned {some} and sold {second} of them to {other}.", -1),
        ("There were {some} on the shelf, and {name} took {second} away.", -1),
        ("{name} owned {some} and bought {second} more from {other}.", 1),
        ("There were {some} on the shelf, and {name} put {second} more there.", 1),
    ),
}
PAIRS: Mapping[Domain, tuple[str, ...]] = {
    "in": ("{first} has {some}. {second} has {others}.", "{first} has {some} and {second} has {others}."),
    "out": ("{some} belong to {first}, {others} to {second}.", "{first} owns {some}, while {second} owns {others}."),
}
CHANGES: Mapping[Domain, tuple[str, ...]] = {
    "in": ("In the morning {name} had {some}. In the evening {pronoun} had {others}.", "{name} had {some} at first and {others} at last."),
    "out": ("On Monday {name} owned {some}, on Friday {others}.", "Last year {name} owned {some}. This year {pronoun} owns {others}."),
}
COUNTS: Mapping[Domain, tuple[str, ...]] = {
    "in": ("{name} says {numbers}.", "{name} has said {numbers}."),
    "out": ("In the notes of {name} stand {numbers}.", "There were {numbers} on the shelf of {name}."),
}
