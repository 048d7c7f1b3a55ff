"""Reading comprehension over short stories: where a thing is after it was moved, who has it after it was handed on.

Every place or person in the question is in the story, and the moved thing has been elsewhere before: only the order of events
gives the answer.
"""

import random
from typing import NamedTuple

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.prose import chance, choose, question_verdict, shuffled, verdict
from prompt_tuning.data.world.story_lexicon import LEXICA
from prompt_tuning.data.world.story_templates import TEMPLATES
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

_CLUSTER = "comprehension"


class _Tale(NamedTuple):
    """A story about `thing`; `options` are the three candidates for where (or with whom) it is, the right one first."""

    story: str
    about_place: bool
    thing: str
    options: tuple[str, str, str]
    witness: str


_PUT = {
    "in": ("{a} put the {x} in the {p}.", "{a} left the {x} in the {p}.", "{a} kept the {x} in the {p}.", "The {x} of {a} was in the {p}."),
    "out": ("{a} had laid the {x} down in the {p}.", "In the {p} {a} had a {x}.", "There was a {x} in the {p}, and {a} knew it."),
}
_MOVE = {
    "in": (
        "Then {a} moved the {x} to the {p}.",
        "Later {a} took the {x} to the {p}.",
        "{a} carried the {x} to the {p}.",
        "After that {a} brought the {x} to the {p}.",
    ),
    "out": (
        "The {x} was moved to the {p} by {a}.",
        "Next, {a} went to the {p} with the {x}.",
        "It was {a} who took the {x} into the {p}.",
    ),
}
_HAVE = {
    "in": ("{a} had the {x}.", "{a} found the {x}.", "{a} bought the {x}.", "The {x} was with {a}."),
    "out": ("At first the {x} was in the hands of {a}.", "{a} owned a {x}.", "It was {a} who held the {x}."),
}
_GIVE = {
    "in": (
        "{a} gave the {x} to {b}.",
        "{a} handed the {x} to {b}.",
        "{b} got the {x} from {a}.",
        "{b} took the {x} from {a}.",
        "Then {a} gave {b} the {x}.",
    ),
    "out": (
        "{a} passed {b} the {x}.",
        "The {x} was given to {b} by {a}.",
        "Next, the {x} went from {a} to {b}.",
    ),
}
_FILLERS = {
    "in": ("{d} was hungry.", "It was a cold day.", "{d} was tired.", "The day was warm."),
    "out": ("The wind was strong.", "{d} slept all day.", "Outside it began to snow."),
}


def _where_tale(rng: random.Random, domain: Domain) -> _Tale:
    lexicon = LEXICA[domain]
    one, two, three = (person.name for person in rng.sample(lexicon.people, 3))
    moved, still = rng.sample(lexicon.things, 2)
    old, new, other = rng.sample(lexicon.places, 3)
    put_moved = choose(rng, _PUT[domain]).format(a=one, x=moved, p=old)
    put_still = choose(rng, _PUT[domain]).format(a=two, x=still, p=other)
    move = choose(rng, _MOVE[domain]).format(a=choose(rng, (one, two)), x=moved, p=new)
    sentences = choose(rng, ([put_moved, put_still, move], [put_still, put_moved, move], [put_moved, move, put_still]))
    if chance(rng, 0.25):
        sentences.insert(rng.randrange(3), choose(rng, _FILLERS[domain]).format(d=three))
    asks_moved = chance(rng, 0.67)
    thing, options = (moved, (new, old, other)) if asks_moved else (still, (other, old, new))
    return _Tale(" ".join(sentences), True, thing, options, three)


def _who_tale(rng: random.Random, domain: Domain) -> _Tale:
    lexicon = LEXICA[domain]
    one, two, three, four = (person.name for person in rng.sample(lexicon.people, 4))
    thing, other = rng.sample(lexicon.things, 2)
    have = choose(rng, _HAVE[domain]).format(a=one, x=thing)
    give = choose(rng, _GIVE[domain]).format(a=one, b=two, x=thing)
    options = (two, one, three)
    sentences = [have, give]
    shape = rng.random()
    if shape < 0.35:
        sentences.append(choose(rng, _GIVE[domain]).format(a=two, b=three, x=thing))
        options = (three, one, two)
    else:
        keeps = choose(rng, _HAVE[domain]).format(a=three, x=other)
        sentences.insert(rng.randrange(3), keeps)
        if shape < 0.55:
            sentences.append(choose(rng, _GIVE[domain]).format(a=two, b=one, x=thing))
            options = (one, two, three)
        elif shape < 0.75:
            thing, options = other, (three, one, two)
    if len(sentences) < 4 and chance(rng, 0.2):
        sentences.insert(rng.randrange(3), choose(rng, _FILLERS[domain]).format(d=four))
    return _Tale(" ".join(sentences), False, thing, options, four)


_WHERE_QUESTION = {
    "in": ("Where is the {x}?", "Where is the {x} now?"),
    "out": ("In which place is the {x}?", "Where can the {x} be found?"),
}
_WHO_QUESTION = {"in": ("Who has the {x}?", "Who has the {x} now?"), "out": ("Which person has the {x}?", "With whom is the {x} now?")}
_WHERE_CLOSED = {
    "in": ("Is the {x} in the {o}?", "Is the {x} now in the {o}?"),
    "out": ("Can the {x} be found in the {o}?", "Does the {o} hold the {x}?"),
}
_WHO_CLOSED = {
    "in": ("Does {o} have the {x}?", "Does {o} have the {x} now?"),
    "out": ("Is it {o} who has the {x}?", "Is the {x} with {o}?"),
}

_WHERE_ENDINGS = (
    "So the {x} is now in the {q}.",
    "In the end the {x} is in the {q}.",
    "Whoever wants the {x} must go to the {q}.",
    "{d} looked for the {x} and found it in the {q}.",
    "{open} It is in the {q}.",
    "{open} In the {q}.",
    "Is the {x} in the {o0}, the {o1} or the {o2}? The {x} is in the {q}.",
    "{open} Of the {o0}, the {o1} and the {o2}, the right place is the {q}.",
)
_WHO_ENDINGS = (
    "So {q} has the {x} now.",
    "In the end the {x} is with {q}.",
    "Whoever wants the {x} must go to {q}.",
    "{d} looked for the {x} and saw that {q} had it.",
    "{open} It is {q}.",
    "{open} {q} has it.",
    "Is it {o0}, {o1} or {o2} who has the {x}? It is {q}.",
    "{open} Of {o0}, {o1} and {o2}, the right person is {q}.",
)


def _open_question(rng: random.Random, domain: Domain, tale: _Tale) -> str:
    return choose(rng, (_WHERE_QUESTION if tale.about_place else _WHO_QUESTION)[domain]).format(x=tale.thing)


def _closed_question(rng: random.Random, domain: Domain, tale: _Tale, option: str) -> str:
    return choose(rng, (_WHERE_CLOSED if tale.about_place else _WHO_CLOSED)[domain]).format(x=tale.thing, o=option)


def _claim(tale: _Tale, option: str) -> str:
    return f"the {tale.thing} is in the {option}" if tale.about_place else f"{option} has the {tale.thing}"


def _ending(rng: random.Random, domain: Domain, tale: _Tale) -> str:
    kind = rng.random()
    if kind < 0.5:
        truth = chance(rng, 0.5)
        option = tale.options[0] if truth else choose(rng, tale.options[1:])
        if kind < 0.2:
            return verdict(rng, _claim(tale, option), truth)
        question = _closed_question(rng, domain, tale, option)
        if kind < 0.37:
            return question_verdict(rng, question, truth)
        right = f"it is in the {tale.options[0]}" if tale.about_place else f"{tale.options[0]} has it"
        return f"{question} {'Yes' if truth else 'No'}, {right}."
    first, second, third = shuffled(rng, tale.options)
    ending = choose(rng, _WHERE_ENDINGS if tale.about_place else _WHO_ENDINGS)
    question = _open_question(rng, domain, tale)
    return ending.format(x=tale.thing, q=tale.options[0], d=tale.witness, open=question, o0=first, o1=second, o2=third)


def passages(rng: random.Random, domain: Domain) -> str:
    """A story of three or four sentences, and what follows from it, told in two ways."""
    tale = (_where_tale if chance(rng, 0.5) else _who_tale)(rng, domain)
    return " ".join([tale.story, _ending(rng, domain, tale), _ending(rng, domain, tale)])


def _draw_yes_no(rng: random.Random, domain: Domain, language: Language) -> Row:
    tale = (_where_tale if chance(rng, 0.5) else _who_tale)(rng, domain)
    label = rng.randrange(2)
    option = tale.options[0] if label else choose(rng, tale.options[1:])
    question = _closed_question(rng, domain, tale, option)
    return {"story": tale.story, "question": question, "claim": _claim(tale, option), "label": label}


def _choice_row(rng: random.Random, domain: Domain, tale: _Tale) -> Row:
    options = shuffled(rng, tale.options)
    row: Row = {
        "story": tale.story,
        "question": _open_question(rng, domain, tale),
        "thing": tale.thing,
        "label": options.index(tale.options[0]),
    }
    return row | {f"choice{index}": option for index, option in enumerate(options)}


def _draw_where(rng: random.Random, domain: Domain, language: Language) -> Row:
    return _choice_row(rng, domain, _where_tale(rng, domain))


def _draw_who(rng: random.Random, domain: Domain, language: Language) -> Row:
    return _choice_row(rng, domain, _who_tale(rng, domain))


def _draw_open(rng: random.Random, domain: Domain, language: Language) -> Row:
    tale = (_where_tale if chance(rng, 0.5) else _who_tale)(rng, domain)
    return {"story": tale.story, "question": _open_question(rng, domain, tale), "reply": tale.options[0]}


_NO_YES = ("no", "yes")
_THREE = ("{choice0}", "{choice1}", "{choice2}")

TASKS = (
    WorldTask(
        name="story_yes_no",
        cluster=_CLUSTER,
        draw=_draw_yes_no,
        key_fields=("story", "question"),
        plain=Template("story: {story} question: {question}", "{answer}", _NO_YES, name="plain"),
        templates=TEMPLATES["story_yes_no"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="story_where",
        cluster=_CLUSTER,
        draw=_draw_where,
        key_fields=("story", "question"),
        plain=Template("story: {story} question: {question} choices: {choice0}, {choice1}, {choice2}", "{answer}", _THREE, name="plain"),
        templates=TEMPLATES["story_where"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="story_who",
        cluster=_CLUSTER,
        draw=_draw_who,
        key_fields=("story", "question"),
        plain=Template("story: {story} question: {question} choices: {choice0}, {choice1}, {choice2}", "{answer}", _THREE, name="plain"),
        templates=TEMPLATES["story_who"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="story_answer",
        cluster=_CLUSTER,
        draw=_draw_open,
        key_fields=("story", "question"),
        plain=Template("story: {story} question: {question}", "{reply}", name="plain"),
        templates=TEMPLATES["story_answer"],
        metrics=("exact_match", "squad_f1"),
    ),
)
