"""Small helpers of the story clusters: drawing, articles, and sentences that judge a claim."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Each pair judges the claim {c}, first as true, then as false. The claim stands before the judgement, so that the judgement can be
# foretold by understanding alone.
_VERDICTS = (
    ("Is it true that {c}? Yes, that is true.", "Is it true that {c}? No, that is false."),
    ("Somebody said that {c}. That was right.", "Somebody said that {c}. That was wrong."),
    ("To claim that {c} would be true.", "To claim that {c} would be false."),
    ("Can we say that {c}? The answer is yes.", "Can we say that {c}? The answer is no."),
    ("If you think that {c}, you are right.", "If you think that {c}, you are wrong."),
    ("A child asked whether {c}, and the answer was yes.", "A child asked whether {c}, and the answer was no."),
)


def choose(rng: random.Random, options: Sequence[T]) -> T:
    """One of `options`, each as likely as the other (faster than `rng.choice`)."""
    return options[int(rng.random() * len(options))]


def chance(rng: random.Random, probability: float) -> bool:
    """True with the given probability."""
    return rng.random() < probability


def shuffled(rng: random.Random, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return rng.sample(items, len(items))


def a(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def verdict(rng: random.Random, claim: str, truth: bool) -> str:
    """One or two sentences that say whether `claim`, a clause without a full stop, is true."""
    return choose(rng, _VERDICTS)[0 if truth else 1].format(c=claim)


def question_verdict(rng: random.Random, question: str, truth: bool) -> str:
    """A yes-no question with its answer."""
    word = "yes" if truth else "no"
    ending = choose(rng, (f"{word.capitalize()}.", f"The answer is {word}.", f"One has to say {word}.", f"The answer to this is {word}."))
    return f"{question} {ending}"
