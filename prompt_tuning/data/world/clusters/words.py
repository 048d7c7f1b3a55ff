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
            f"Yes, there is a repeated word, {twice}.",
            f"Was anything there twice? Yes, it was {twice}.",
            f"{name} thought that a word was repeated, and that was true.",
            f"There {name} heard a repeated word, {twice}.",
            f"So the words are not all different, for {twice} came twice.",
            f"{name} called it a list with a repeat, which is right.",
        )
    else:
        ends = (
            "Does a word come back? No, none does.",
            "No, there is no repeated word.",
            "Was anything there twice? No, nothing was.",
            f"{name} thought that a word was repeated, and that was false.",
            f"There {name} heard no repeated word.",
            "So the words are all different, for each came once.",
            f"{name} called it a list with a repeat, which is wrong.",
        )
    return f"{_sentence(rng, domain, words)} {rng.choice(ends)}"


def _say_member(rng: random.Random, domain: Domain) -> str:
    *words, one, two = rng.sample(NOUNS[domain], 6)
    name = rng.choice(NAMES[domain])
    said = []
    there = [(word, True) for word in rng.sample(words, 2)]
    for word, found in rng.sample([*there, (one, False), (two, False)], 3):
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
            "Yes, these are the same words.",
            f"{first} and {second} have the same words.",
            "The two agree in every word.",
            f"{second} says that both have the same words, and that is true.",
        )
    else:
        ends = (
            f"Are these the same words? No, {gone} made way for {new}.",
            "No, these are different words.",
            f"{first} and {second} have different words, for {new} is new.",
            f"The two do not agree, since {new} stands where {gone} was.",
            f"{second} says that both have the same words, and that is false.",
        )
    return f"{_sentence(rng, domain, words, first)} {_sentence(rng, domain, other, second)} {rng.choice(ends)}"


def _say_story(rng: random.Random, domain: Domain) -> str:
    first, second = people(rng, domain, 2)
    one, two = rng.sample(NOUNS[domain], 2)
    return (
        rng.choice(
            (
                f"{first} drew a {one} and a {two}. {second} liked the {one} best.",
                f"{first} dreamed of a {one}. Behind it was a {two}, and {second} stood near.",
                f"When {first} came home, {pronoun(first)} told {second} about the {one} and the {two}.",
            )
        )
        .replace(" a apple", " an apple")
        .replace(" a island", " an island")
    )


_SKILLS = (_say_reverse, _say_pick, _say_repeat, _say_member, _say_same, _say_story)
_WEIGHTS = (12, 12, 16, 44, 13, 3)


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose about a list of words (1 to 4 sentences)."""
    return rng.choices(_SKILLS, _WEIGHTS)[0](rng, domain)


_NO_YES = ("no", "yes")
_YES_NO = ("yes", "no")
_CHOICES = ("{choice0}", "{choice1}", "{choice2}")
_CLASSIFIED = ("accuracy", "f1_macro")

TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="word_reverse",
        cluster="words",
        draw=_draw_reverse,
        key_fields=("text",),
        plain=Template("reverse: {text}", "{reversed}", name="plain"),
        templates=(
            Template("{text}\nSay these words in reverse order.", "{reversed}", name="say"),
            Template("Reverse the list: {text}", "{reversed}", name="reverse"),
            Template("Here is a list. {text} Give it back to front.", "{reversed}", name="back"),
            Template("What does this list become when its last word goes first, and so on? {text}", "{reversed}", name="become"),
            Template("{text}\n\nNow write the words from the last to the first.", "{reversed}", name="last"),
            Template("Turn the word order around.\nList: {text}\nTurned around:", "{reversed}", name="turn"),
            Template("Take the list in this sentence and mirror it. {text}", "{reversed}", name="mirror"),
            Template("Someone reversed a list and got {reversed}. What was the list?", "{words}", turned_around=True, name="undo"),
            Template("Which words, put in reverse, give: {reversed}", "{words}", turned_around=True, name="which"),
            Template(
                "The answer is {reversed}. Write the sentence with the list whose reverse it is.",
                "{text}",
                turned_around=True,
                name="sentence",
            ),
        ),
        metrics=("exact_match", "rougeL"),
    ),
    WorldTask(
        name="word_pick",
        cluster="words",
        draw=_draw_pick,
        key_fields=("text", "place"),
        plain=Template("list: {text} pick: {place}", answer_choices=_CHOICES, name="plain"),
        templates=(
            Template("{text}\nWhat is the {place} word of the list?", answer_choices=_CHOICES, name="what"),
            Template("Name the {place} word. {text}", answer_choices=_CHOICES, name="name"),
            Template("{text} Which word stands {place}?\n{options}", answer_choices=_CHOICES, name="options"),
            Template("Pick the {place} one of these words: {text}", answer_choices=_CHOICES, name="pick"),
            Template("Read the list and answer with one word.\n{text}\nThe {place} one:", answer_choices=_CHOICES, name="read"),
            Template("Place: {place}\nList: {text}\nWord:", answer_choices=_CHOICES, name="fields"),
            Template("From this list I want the {place} word only. {text}\n\n{options}", answer_choices=_CHOICES, name="want"),
            Template("{text}\nGive the {place} item.", answer_choices=_CHOICES, name="item"),
            Template("Write a sentence with a list whose {place} word is {answer}.", "{text}", _CHOICES, turned_around=True, name="write"),
            Template("{text} Where is {answer}, first, second or last?", "{place}", _CHOICES, turned_around=True, name="where"),
        ),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="word_repeat",
        cluster="words",
        draw=_draw_repeat,
        key_fields=("text",),
        plain=Template("repeat: {text}", answer_choices=_NO_YES, name="plain"),
        templates=(
            Template("{text}\nDoes the list hold a word twice?", answer_choices=_NO_YES, name="twice"),
            Template("Is any word repeated? {text}\n{options}", answer_choices=_NO_YES, name="any"),
            Template("True or false: one word of the list is repeated. {text}", answer_choices=("false", "true"), name="true"),
            Template("{text}\nAre all of the words different?", answer_choices=_YES_NO, name="different"),
            Template("Read the words and look for a repeat. {text} Is there one?", answer_choices=_NO_YES, name="look"),
            Template(
                "Say whether the claim is right.\nClaim: a word comes twice.\n{text}\n{options}",
                answer_choices=("wrong", "right"),
                name="claim",
            ),
            Template("{text}\nThe words are (different or repeated):", answer_choices=("different", "repeated"), name="kind"),
            Template("Tell me if the same word is in the list two times. {text}", answer_choices=_NO_YES, name="tell"),
            Template("Write a list {answer} a repeated word.", "{text}", ("without", "with"), turned_around=True, name="write"),
            Template("Is a word repeated? The answer is {answer}. Give a list for it.", "{text}", _NO_YES, turned_around=True, name="give"),
        ),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="word_member",
        cluster="words",
        draw=_draw_member,
        key_fields=("text", "word"),
        plain=Template("list: {text} word: {word}", answer_choices=_NO_YES, name="plain"),
        templates=(
            Template("{text}\nIs the word {word} in the list?", answer_choices=_NO_YES, name="ask"),
            Template("Look for {word} in this list. {text} Is it there?\n{options}", answer_choices=_NO_YES, name="look"),
            Template("True or false: the list has the word {word}. {text}", answer_choices=("false", "true"), name="true"),
            Template("Word: {word}\nList: {text}\nFound:", answer_choices=_NO_YES, name="fields"),
            Template("{text}\nCan you find {word} among these words?", answer_choices=_NO_YES, name="find"),
            Template("{text} Someone says the list names {word}. Right or wrong?", answer_choices=("wrong", "right"), name="right"),
            Template("Does {word} belong to the list below?\n\n{text}\n\n{options}", answer_choices=_NO_YES, name="belong"),
            Template("Is {word} missing from the list? {text}", answer_choices=_YES_NO, name="missing"),
            Template("Write a list {answer} the word {word}.", "{text}", ("without", "with"), turned_around=True, name="write"),
            Template("Is {word} in it? The answer is {answer}. What list is meant?", "{text}", _NO_YES, turned_around=True, name="meant"),
        ),
        metrics=_CLASSIFIED,
    ),
    WorldTask(
        name="word_same_set",
        cluster="words",
        draw=_draw_same,
        key_fields=("text", "other"),
        plain=Template("list one: {text} list two: {other}", answer_choices=_NO_YES, name="plain"),
        templates=(
            Template("{text}\n{other}\nDo both lists have the same words?", answer_choices=_NO_YES, name="both"),
            Template(
                "Compare two lists, whatever the order. {text} {other} Same or different?",
                answer_choices=("different", "same"),
                name="compare",
            ),
            Template("List A: {text}\nList B: {other}\nDo they hold the same words?\n{options}", answer_choices=_NO_YES, name="letters"),
            Template("True or false: only the order differs. {text} {other}", answer_choices=("false", "true"), name="true"),
            Template("{text} {other} Is there a word that only one of the two lists has?", answer_choices=_YES_NO, name="only"),
            Template("Forget the order. Are these lists equal?\n{text}\n{other}", answer_choices=_NO_YES, name="equal"),
            Template(
                "Say if the second list is the first in a new order.\nFirst: {text}\nSecond: {other}", answer_choices=_NO_YES, name="new"
            ),
            Template("{text}\n{other}\nThe words of the lists are:\n{options}", answer_choices=("different", "same"), name="options"),
            Template(
                "{text} Write another list with {answer} words.", "{other}", ("different", "the same"), turned_around=True, name="another"
            ),
            Template("Same words? {answer}. One list: {other} Write the other one.", "{text}", _NO_YES, turned_around=True, name="write"),
        ),
        metrics=_CLASSIFIED,
    ),
)
