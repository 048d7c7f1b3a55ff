"""Words of a list: turned back to front, picked by place, found, repeated, compared with another list.

The lists stand in short sentences. A row says nothing of the answer; a passage goes on in prose that depends on it.
Out of domain the words, the names and the sentences around a list are others.
"""

import random
from collections.abc import Mapping

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.clusters.words_lexicon import NAMES, NOUNS, capital, listed, people, pronoun
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

_FRAMES: Mapping[Domain, tuple[str, ...]] = {
    "in": ("The list says {list}.", "{name} wrote {list}.", "The words of {name} are {list}.", "{name} said {list}."),
    "out": ("On the card of {name} stand {list}.", "{name} read out {list}.", "From the radio came {list}."),
}
_PLACES = ("first", "second", "last")


def _sentence(rng: random.Random, domain: Domain, words: list[str], name: str | None = None) -> str:
    frame = rng.choice(_FRAMES[domain])
    return frame.format(list=listed(words, style=rng.randrange(2)), name=name or rng.choice(NAMES[domain]))


def _draw_reverse(rng: random.Random, domain: Domain, language: Language) -> Row:
    words = rng.sample(NOUNS[domain], rng.choice((3, 4)))
    return {"text": _sentence(rng, domain, words), "words": ", ".join(words), "reversed": ", ".join(reversed(words))}


def _draw_pick(rng: random.Random, domain: Domain, language: Language) -> Row:
    words = rng.sample(NOUNS[domain], 3)
    place = rng.randrange(3)
    choices = rng.sample(words, 3)
    row: Row = {"text": _sentence(rng, domain, words), "place": _PLACES[place], "label": choices.index(words[place])}
    return row | {f"choice{index}": choice for index, choice in enumerate(choices)}


def _with_repeat(rng: random.Random, domain: Domain, repeated: bool) -> tuple[list[str], str | None]:
    """Four words, one of them twice or none, and the one that is there twice."""
    words = rng.sample(NOUNS[domain], 4)
    if not repeated:
        return words, None
    source, target = rng.sample(range(4), 2)
    words[target] = words[source]
    return words, words[source]


def _draw_repeat(rng: random.Random, domain: Domain, language: Language) -> Row:
    label = rng.randrange(2)
    words, _ = _with_repeat(rng, domain, bool(label))
    return {"text": _sentence(rng, domain, words), "label": label}


def _draw_member(rng: random.Random, domain: Domain, language: Language) -> Row:
    label = rng.randrange(2)
    *words, stranger = rng.sample(NOUNS[domain], 5)
    return {"text": _sentence(rng, domain, words), "word": rng.choice(words) if label else stranger, "label": label}


def _two_lists(rng: random.Random, domain: Domain, same: bool) -> tuple[list[str], list[str], str, str]:
    """Three words, the same or all but one of them in any order, and the word that went and the one that came."""
    *words, new = rng.sample(NOUNS[domain], 4)
    other = rng.sample(words, 3)
    place = rng.randrange(3)
    gone = other[place]
    if not same:
        other[place] = new
    return words, other, gone, new


def _draw_same(rng: random.Random, domain: Domain, language: Language) -> Row:
    label = rng.randrange(2)
    words, other, _, _ = _two_lists(rng, domain, bool(label))
    first, second = people(rng, domain, 2)
    return {"text": _sentence(rng, domain, words, first), "other": _sentence(rng, domain, other, second), "label": label}


def _say_reverse(rng: random.Random, domain: Domain) -> str:
    words = rng.sample(NOUNS[domain], rng.choice((3, 3, 4)))
    back = listed(words[::-1], style=rng.randrange(2))
    name = rng.choice(NAMES[domain])
    ends = (
        f"Read from the end, that is {back}.",
        f"Backwards it goes {back}.",
        f"{name} turned the words around and got {back}.",
        f"In the other order that makes {back}.",
        f"{capital(back)}, that is how it sounds from back to front.",
    )
    return f"{_sentence(rng, domain, words)} {rng.choice(ends)}"


def _say_pick(rng: random.Random, domain: Domain) -> str:
    words = rng.sample(NOUNS[domain], 3)
    name = rng.choice(NAMES[domain])
    said = []
    for place in rng.sample(range(3), 2):
        word, nth = words[place], _PLACES[place]
        said.append(
            rng.choice(
                (
                    f"The {nth} word was {word}.",
                    f"The {nth} of them is {word}.",
                    f"{name} took the {nth} one, {word}.",
                    f"What was the {nth}? It was {word}.",
                )
            )
        )
    return " ".join([_sentence(rng, domain, words), *said])


def _say_repeat(rng: random.Random, domain: Domain) -> str:
    words, twice = _with_repeat(rng, domain, rng.random() < 0.5)
    name = rng.choice(NAMES[domain])
    if twice:
        ends = (
            f"Does a word come back? Yes, {twice} does.",
            f"Was anything there twice? Yes, it was {twice}.",
            f"{name} thought that a word was repeated, and that was true.",
            f"There {name} heard a repeated word, {twice}.",
            f"So the words are not all different, for {twice} came twice.",
            f"{name} called it a list with a repeat, which is right.",
        )
    else:
        ends = (
            "Does a word come back? No, none does.",
            "Was anything there twice? No, nothing was.",
            f"{name} thought that a word was repeated, and that was false.",
            f"There {name} heard no repeated word.",
            "So the words are all different, for each came once.",
            f"{name} called it a list with a repeat, which is wrong.",
        )
    return f"{_sentence(rng, domain, words)} {rng.choice(ends)}"


def _say_member(rng: random.Random, domain: Domain) -> str:
    *words, stranger = rng.sample(NOUNS[domain], 5)
    name = rng.choice(NAMES[domain])
    said = []
    for word, found in rng.sample([(rng.choice(words), True), (stranger, False)], rng.choice((1, 2))):
        if found:
            ends = (
                f"Was {word} there? Yes, it was.",
                f"{name} looked for {word} and found it.",
                f"That {word} is among them is true.",
                f"{name} waited for {word}, and it was named.",
            )
        else:
            ends = (
                f"Was {word} there? No, it was not.",
                f"{name} looked for {word} and did not find it.",
                f"That {word} is among them is false.",
                f"{name} waited for {word}, but it was missing.",
            )
        said.append(rng.choice(ends))
    return " ".join([_sentence(rng, domain, words), *said])


def _say_same(rng: random.Random, domain: Domain) -> str:
    same = rng.random() < 0.5
    words, other, gone, new = _two_lists(rng, domain, same)
    first, second = people(rng, domain, 2)
    if same:
        ends = (
            "Are these the same words? Yes, only the order is new.",
            f"{first} and {second} have the same words.",
            "The two agree in every word.",
            f"{second} says that both have the same words, and that is true.",
        )
    else:
        ends = (
            f"Are these the same words? No, {gone} made way for {new}.",
            f"{first} and {second} have different words, for {new} is new.",
            f"The two do not agree, since {new} stands where {gone} was.",
            f"{second} says that both have the same words, and that is false.",
        )
    return f"{_sentence(rng, domain, words, first)} {_sentence(rng, domain, other, second)} {rng.choice(ends)}"


def _say_story(rng: random.Random, domain: Domain) -> str:
    first, second = people(rng, domain, 2)
    one, two = rng.sample(NOUNS[domain], 2)
    return rng.choice(
        (
            f"{first} drew a {one} and a {two}. {second} liked the {one} best.",
            f"{first} dreamed of a {one}. Behind it was a {two}, and {second} stood near.",
            f"When {first} came home, {pronoun(first)} told {second} about the {one} and the {two}.",
        )
    ).replace(" a apple", " an apple").replace(" a island", " an island")


_SKILLS = (_say_reverse, _say_pick, _say_repeat, _say_member, _say_same, _say_story)
_WEIGHTS = (20, 15, 22, 15, 22, 6)


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose about a list of words (1 to 4 sentences)."""
    return rng.choices(_SKILLS, _WEIGHTS)[0](rng, domain)


_NO_YES = ("no", "yes")
_CHOICES = ("{choice0}", "{choice1}", "{choice2}")
_CLASSIFIED = ("accuracy", "f1_macro")

TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="word_reverse",
        cluster="words",
        draw=_draw_reverse,
        key_fields=("text",),
        plain=Template("reverse: {text}", "{reversed}", name="plain"),
        templates=(),
        metrics=("exact_match", "rougeL"),
    ),
    WorldTask(
        name="word_pick",
        cluster="words",
        draw=_draw_pick,
        key_fields=("text", "place"),
        plain=Template("list: {text} pick: {place}", answer_choices=_CHOICES, name="plain"),
        templates=(),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="word_repeat",
        cluster="words",
        draw=_draw_repeat,
        key_fields=("text",),
        plain=Template("repeat: {text}", answer_choices=_NO_YES, name="plain"),
        templates=(),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="word_member",
        cluster="words",
        draw=_draw_member,
        key_fields=("text", "word"),
        plain=Template("list: {text} word: {word}", answer_choices=_NO_YES, name="plain"),
        templates=(),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="word_same_set",
        cluster="words",
        draw=_draw_same,
        key_fields=("text", "other"),
        plain=Template("list one: {text} list two: {other}", answer_choices=_NO_YES, name="plain"),
        templates=(),
        metrics=_CLASSIFIED,
    ),
)
