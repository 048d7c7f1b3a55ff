"""Extraction: who gives and who receives, which kind of thing comes first, which colour belongs to what, who did what and when.

In each sentence two candidates stand side by side (two people, two colours, two things), so that only its structure gives the answer.
"""

import random

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.prose import a, chance, choose, question_verdict, shuffled, verdict
from prompt_tuning.data.world.story_lexicon import KINDS, LEXICA
from prompt_tuning.data.world.story_templates import TEMPLATES
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

_CLUSTER = "extraction"

# {g} gives {x} to {r}.
_GIVING = {
    "in": (
        "{g} gave {r} {x}.",
        "{g} gave {x} to {r}.",
        "{r} got {x} from {g}.",
        "{r} took {x} from {g}.",
        "{g} sold {x} to {r}.",
        "{r} bought {x} from {g}.",
        "{g} sent {r} {x}.",
    ),
    "out": (
        "{r} was given {x} by {g}.",
        "From {g} came {x} for {r}.",
        "{g} passed {x} on to {r}.",
        "{x_} went from {g} to {r}.",
        "{r} was handed {x} by {g}.",
    ),
}
_TIMES = {
    "in": ("", "", "One day ", "In the morning ", "Last week ", "At noon "),
    "out": ("", "", "Some time ago ", "In the evening ", "Last year "),
}
_ROLE_ENDINGS = (
    "So {g} was the giver.",
    "So {r} was the receiver.",
    "The giver was {g} and the receiver was {r}.",
    "The receiver was {r} and the giver was {g}.",
    "Here {g} is the one who gives, the giver.",
    "Here {r} is the one who receives, the receiver.",
    "{g} is the giver here, and {r} the receiver.",
    "{r} is the receiver here, and {g} the giver.",
    "Was {g} the giver or the receiver? {g} was the giver.",
    "Was {r} the giver or the receiver? {r} was the receiver.",
    "What was the part of {g}? The part of the giver.",
    "What was the part of {r}? The part of the receiver.",
)

# {x} and {y} are things with their articles, {x} always the first.
_LISTS = {
    "in": (
        "{n} saw {x} and {y}.",
        "{n} bought {x} and {y}.",
        "There were {x} and {y} at the {s}.",
        "{n} drew {x} and then {y}.",
        "{n} wanted {x}, but not {y}.",
        "At the {s} {n} found {x}, and later {y}.",
    ),
    "out": (
        "Next to {x} {n} laid {y}.",
        "{n} kept both {x} and {y} at the {s}.",
        "{n} dreamed of {x} as well as {y}.",
        "Neither {x} nor {y} could {n} get at the {s}.",
    ),
}
_LIST_ENDINGS = (
    "The first of the two is {k}.",
    "What is named first is {k}.",
    "So {k} came first, and {l} came second.",
    "Which comes first, {k} or {l}? It is {k}.",
    "Which comes first, {l} or {k}? It is {k}.",
    "First there was {k}, then {l}.",
    "The {x} is {k} and the {y} is {l}.",
    "The {y} is {l}, the {x} is {k}.",
    "What kind of thing was first? It was {k}.",
    "Of the two, the one in front is {k}.",
)

# {c} belongs to {x}, {e} to {y}.
_COLOURED = {
    "in": (
        "{n} bought a {c} {x} and a {e} {y}.",
        "The {x} was {c} and the {y} was {e}.",
        "{n} put the {c} {x} next to the {e} {y}.",
        "{n} had a {c} {x}, but the {y} was {e}.",
        "A {c} {x} and a {e} {y} were in the {p}.",
    ),
    "out": (
        "While the {x} was painted {c}, the {y} was painted {e}.",
        "In the {p} stood a {c} {x} beside a {e} {y}.",
        "{n} likes the {x} for being {c} and the {y} for being {e}.",
    ),
}
_COLOUR_ENDINGS = (
    "What colour was the {x}? It was {c}.",
    "The colour of the {x} was {c}.",
    "So the {x} was {c}.",
    "{d} asked for the colour of the {x}, and the answer was {c}.",
    "Which of the two was {c}? The {x}.",
    "The {x} was not {e} but {c}.",
)

# A person {n}, a day {w}, a place or shop {p}, a thing {x}; {o} is another person.
_EVENTS = {
    "in": (
        "On {w} {n} bought a {x} at the {p}.",
        "{n} lost a {x} at the {p} on {w}.",
        "At the {p} {n} found a {x} on {w}.",
        "{n} went to the {p} on {w} and sold a {x}.",
        "On {w} a {x} was seen at the {p} by {n}.",
    ),
    "out": (
        "It was on {w} that {n} came to the {p} for a {x}.",
        "The {x} that {n} wanted was at the {p} until {w}.",
        "A {x} fell down at the {p} on {w}, and {n} picked it up.",
    ),
}
_WANTED = ("person", "day", "place", "thing")
_EVENT_ENDINGS = {
    "person": ("The person was {v}.", "Who was it? It was {v}.", "The name of the person is {v}."),
    "day": ("The day was {v}.", "When was it? It was on {v}.", "All this was on {v}."),
    "place": ("The place was the {v}.", "Where was it? It was at the {v}.", "All this was at the {v}."),
    "thing": ("The thing was a {v}.", "What was it about? It was about a {v}.", "The whole thing was about a {v}."),
}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _giving(rng: random.Random, domain: Domain) -> tuple[str, str, str]:
    """A sentence, the giver, the receiver."""
    giver, receiver = (person.name for person in rng.sample(LEXICA[domain].people, 2))
    thing = choose(rng, LEXICA[domain].things)
    article = choose(rng, ("a", "the"))
    time = choose(rng, _TIMES[domain])
    frame = choose(rng, _GIVING[domain])
    if time:
        frame = time + frame.replace("From", "from")
    x = f"{article} {thing}"
    return frame.format(g=giver, r=receiver, x=x, x_=x if time else _capital(x)), giver, receiver


def _listing(rng: random.Random, domain: Domain) -> tuple[str, str, str, int, int]:
    """A sentence that names two things, the things, and their kinds."""
    lexicon = LEXICA[domain]
    first, second = rng.sample(range(len(KINDS)), 2)
    x, y = choose(rng, lexicon.kinds[first]), choose(rng, lexicon.kinds[second])
    name, shop = choose(rng, lexicon.people).name, choose(rng, lexicon.shops)
    return choose(rng, _LISTS[domain]).format(n=name, s=shop, x=a(x), y=a(y)), x, y, first, second


def _coloured(rng: random.Random, domain: Domain) -> tuple[str, tuple[str, str], tuple[str, str]]:
    """A sentence, and the (thing, colour) pairs it holds."""
    lexicon = LEXICA[domain]
    x, y = rng.sample(lexicon.things, 2)
    c, e = rng.sample(lexicon.colours, 2)
    sentence = choose(rng, _COLOURED[domain]).format(n=choose(rng, lexicon.people).name, p=choose(rng, lexicon.places), x=x, y=y, c=c, e=e)
    return sentence.replace("a orange", "an orange").replace("A orange", "An orange"), (x, c), (y, e)


def _event(rng: random.Random, domain: Domain) -> tuple[str, dict[str, str]]:
    """A sentence, and what stands in it under each of `_WANTED`."""
    lexicon = LEXICA[domain]
    name, day = choose(rng, lexicon.people).name, choose(rng, lexicon.days)
    place, thing = choose(rng, lexicon.shops), choose(rng, lexicon.things)
    sentence = choose(rng, _EVENTS[domain]).format(n=name, w=day, p=place, x=thing)
    return sentence, {"person": name, "day": day, "place": place, "thing": thing}


def _giving_passage(rng: random.Random, domain: Domain) -> str:
    sentence, giver, receiver = _giving(rng, domain)
    told = [ending.format(g=giver, r=receiver) for ending in rng.sample(_ROLE_ENDINGS, 2)]
    if chance(rng, 0.3):
        truth = chance(rng, 0.5)
        name, role = choose(rng, ((giver, "giver"), (receiver, "receiver")))
        said = role if truth else ("receiver" if role == "giver" else "giver")
        told[0] = verdict(rng, f"{name} was the {said}", truth)
    return " ".join([sentence, *told])


def _listing_passage(rng: random.Random, domain: Domain) -> str:
    sentence, x, y, first, second = _listing(rng, domain)
    k, other = (_kind_noun(kind) for kind in (first, second))
    told = (ending.format(x=x, y=y, k=k, l=other) for ending in rng.sample(_LIST_ENDINGS, 2))
    return " ".join([sentence, *told])


def _kind_noun(kind: int) -> str:
    """The kind with its article, as it stands in prose."""
    return ("an animal", "food", "a tool")[kind]


def _coloured_passage(rng: random.Random, domain: Domain) -> str:
    """The sentence, and of both things something that follows."""
    sentence, one, two = _coloured(rng, domain)
    told = []
    for (x, c), (_, e) in shuffled(rng, ((one, two), (two, one))):
        truth = chance(rng, 0.5)
        said = c if truth else e
        kind = rng.random()
        if kind < 0.4:
            told.append(choose(rng, _COLOUR_ENDINGS).format(x=x, c=c, e=e, d=choose(rng, LEXICA[domain].people).name))
        elif kind < 0.65:
            told.append(question_verdict(rng, f"Was the {x} {said}?", truth))
        else:
            told.append(verdict(rng, f"the {x} was {said}", truth))
    return " ".join([sentence, *told])


def _event_passage(rng: random.Random, domain: Domain) -> str:
    sentence, values = _event(rng, domain)
    wanted = rng.sample(_WANTED, 2)
    return " ".join([sentence, *(choose(rng, _EVENT_ENDINGS[key]).format(v=values[key]) for key in wanted)])


_PASSAGES = (_giving_passage, _giving_passage, _listing_passage, _coloured_passage, _coloured_passage, _event_passage)


def passages(rng: random.Random, domain: Domain) -> str:
    """A sentence and what can be taken from it; who gives and which colour is whose come twice as often as the others."""
    return choose(rng, _PASSAGES)(rng, domain)


def _draw_role(rng: random.Random, domain: Domain, language: Language) -> Row:
    sentence, giver, receiver = _giving(rng, domain)
    label = rng.randrange(2)
    return {"sentence": sentence, "person": (giver, receiver)[label], "label": label}


def _draw_first_kind(rng: random.Random, domain: Domain, language: Language) -> Row:
    sentence, x, _, label, _ = _listing(rng, domain)
    return {"sentence": sentence, "first": x, "label": label}


def _draw_colour_claim(rng: random.Random, domain: Domain, language: Language) -> Row:
    sentence, one, two = _coloured(rng, domain)
    label = rng.randrange(2)
    thing, right, wrong = (*one, two[1]) if chance(rng, 0.5) else (*two, one[1])
    return {"sentence": sentence, "claim": f"the {thing} was {right if label else wrong}", "label": label}


def _draw_colour(rng: random.Random, domain: Domain, language: Language) -> Row:
    sentence, one, two = _coloured(rng, domain)
    thing, colour = choose(rng, (one, two))
    return {"sentence": sentence, "thing": thing, "colour": colour}


def _draw_detail(rng: random.Random, domain: Domain, language: Language) -> Row:
    sentence, values = _event(rng, domain)
    wanted = choose(rng, _WANTED)
    return {"sentence": sentence, "wanted": wanted, "value": values[wanted]}


_ROLES = ("giver", "receiver")
_WRONG_RIGHT = ("wrong", "right")

TASKS = (
    WorldTask(
        name="giver_receiver",
        cluster=_CLUSTER,
        draw=_draw_role,
        key_fields=("sentence", "person"),
        plain=Template("sentence: {sentence} person: {person}", "{answer}", _ROLES, name="plain"),
        templates=TEMPLATES["giver_receiver"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="first_kind",
        cluster=_CLUSTER,
        draw=_draw_first_kind,
        key_fields=("sentence",),
        plain=Template("first kind: {sentence}", "{answer}", KINDS, name="plain"),
        templates=TEMPLATES["first_kind"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="colour_claim",
        cluster=_CLUSTER,
        draw=_draw_colour_claim,
        key_fields=("sentence", "claim"),
        plain=Template("sentence: {sentence} claim: {claim}", "{answer}", _WRONG_RIGHT, name="plain"),
        templates=TEMPLATES["colour_claim"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="extract_colour",
        cluster=_CLUSTER,
        draw=_draw_colour,
        key_fields=("sentence", "thing"),
        plain=Template("sentence: {sentence} colour of: {thing}", "{colour}", name="plain"),
        templates=TEMPLATES["extract_colour"],
        metrics=("exact_match", "squad_f1"),
    ),
    WorldTask(
        name="extract_detail",
        cluster=_CLUSTER,
        draw=_draw_detail,
        key_fields=("sentence", "wanted"),
        plain=Template("sentence: {sentence} wanted: {wanted}", "{value}", name="plain"),
        templates=TEMPLATES["extract_detail"],
        metrics=("exact_match", "squad_f1"),
    ),
)
