"""Paraphrase: whether two sentences say the same, when voice, synonyms, the order of words and the point of view may all change.

A sentence is told from a small meaning (`Event`), so that sameness is known by construction: two sentences are the same exactly when
their events are.
"""

import dataclasses
import random
from typing import NamedTuple

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.clusters import paraphrase_templates
from prompt_tuning.data.world.lexicon import DAYS, people, sentence
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask


class Verb(NamedTuple):
    """The forms of a verb."""

    base: str
    past: str
    participle: str


def _verbs(text: str) -> tuple[tuple[Verb, ...], ...]:
    """Groups of synonyms from lines such as `help/helped aid/aided`; the participle is the past form unless a third form is given."""
    groups = []
    for line in text.strip().splitlines():
        forms = [word.split("/") for word in line.split()]
        groups.append(tuple(Verb(form[0], form[1], form[-1]) for form in forms))
    return tuple(groups)


# Verbs of one line mean the same; no two lines do.
ACTIONS: dict[Domain, tuple[tuple[Verb, ...], ...]] = {
    "in": _verbs("""
        help/helped aid/aided
        watch/watched observe/observed
        scare/scared frighten/frightened
        chase/chased
        thank/thanked
        push/pushed
    """),
    "out": _verbs("""
        save/saved rescue/rescued
        catch/caught capture/captured
        greet/greeted welcome/welcomed
        follow/followed
        carry/carried
    """),
}

# What one side does (with "to"), and what the other side does at the same time (with "from"): the same event seen from two ends.
TRANSFERS: dict[Domain, tuple[tuple[tuple[Verb, ...], tuple[Verb, ...]], ...]] = {
    "in": (
        (_verbs("give/gave/given")[0], _verbs("get/got receive/received")[0]),
        (_verbs("sell/sold")[0], _verbs("buy/bought")[0]),
    ),
    "out": (
        (_verbs("lend/lent")[0], _verbs("borrow/borrowed")[0]),
        (_verbs("hand/handed pass/passed")[0], _verbs("take/took/taken")[0]),
    ),
}
BEINGS: dict[Domain, tuple[str, ...]] = {
    "in": ("boy", "girl", "dog", "cat", "farmer", "nurse"),
    "out": ("king", "queen", "wolf", "horse", "sailor", "doctor"),
}
GOODS: dict[Domain, tuple[str, ...]] = {"in": ("ball", "book", "coat"), "out": ("ring", "map", "cup")}
PLACES: dict[Domain, tuple[str, ...]] = {
    "in": ("in the yard", "at the market"),
    "out": ("in the forest", "on the bridge"),
}


@dataclasses.dataclass(frozen=True)
class Event:
    """Who does what to whom: the meaning of a sentence.

    `verb` is an index in ACTIONS, or in TRANSFERS where `goods` (what changes hands) is given; `setting` is a place or a day, or empty.
    """

    agent: str
    patient: str
    verb: int
    goods: str = ""
    negated: bool = False
    setting: str = ""


@dataclasses.dataclass(frozen=True)
class Form:
    """How an event is told: from the agent's or from the patient's end, with which synonym, and which word of denial."""

    passive: bool
    synonym: int
    never: bool
    frame: int = 0  # out of domain: 0 setting in front, 1 cleft ("it was the king who"), 2 setting at the end


def _form(rng: random.Random) -> Form:
    return Form(rng.random() < 0.5, rng.randrange(2), rng.random() < 0.5, rng.randrange(3))


def _event(rng: random.Random, domain: Domain, beings: list[str], transfers: float = 0.3) -> Event:
    agent, patient = beings
    negated = rng.random() < 0.2
    setting = ""
    if rng.random() < 0.35:
        setting = rng.choice(PLACES[domain]) if rng.random() < 0.6 else f"on {rng.choice(DAYS)}"
    if rng.random() < transfers:
        return Event(agent, patient, rng.randrange(len(TRANSFERS[domain])), f"the {rng.choice(GOODS[domain])}", negated, setting)
    return Event(agent, patient, rng.randrange(len(ACTIONS[domain])), "", negated, setting)


def _beings(rng: random.Random, domain: Domain, names: list[str]) -> list[str]:
    """Two who take part, named from the front of `names` or by what they are."""
    one, two = rng.sample(BEINGS[domain], 2)
    return [names[0] if rng.random() < 0.3 else f"the {one}", names[1] if rng.random() < 0.3 else f"the {two}"]


def tell(event: Event, form: Form, domain: Domain) -> str:
    """The sentence of an event in a form, without capital and stop."""
    denial = "never" if form.never else "not"
    if event.goods:
        giving, getting = TRANSFERS[domain][event.verb]
        verbs = getting if form.passive else giving
        subject, other = (event.patient, event.agent) if form.passive else (event.agent, event.patient)
        verb = verbs[form.synonym % len(verbs)]
        rest = f"{event.goods} {'from' if form.passive else 'to'} {other}"
    else:
        verbs = ACTIONS[domain][event.verb]
        verb = verbs[form.synonym % len(verbs)]
        subject, rest = (event.patient, f"by {event.agent}") if form.passive else (event.agent, event.patient)
    if form.passive and not event.goods:
        predicate = f"was {f'{denial} ' if event.negated else ''}{verb.participle} {rest}"
    elif event.negated:
        predicate = f"never {verb.past} {rest}" if form.never else f"did not {verb.base} {rest}"
    else:
        predicate = f"{verb.past} {rest}"
    if domain == "out" and form.frame == 1 and not event.negated:
        subject = f"it was {subject} who"
    if not event.setting:
        return f"{subject} {predicate}"
    if domain == "out" and form.frame == 0:
        return f"{event.setting} {subject} {predicate}"
    return f"{subject} {predicate} {event.setting}"


# How often, of two sentences that differ, the roles do: in passages less than in tasks, for that is what is hard to learn.
TASK_ROLES = 0.7
PASSAGE_ROLES = 0.45


def _altered(rng: random.Random, domain: Domain, event: Event, roles: float) -> Event:
    """An event that differs in one thing: the roles, the verb, or the denial."""
    change = rng.random()
    verbs = roles + 0.57 * (1 - roles)
    # What changes hands may be sold and given at once: there the verb alone tells no two meanings apart.
    if change < roles or (change < verbs and event.goods):
        return dataclasses.replace(event, agent=event.patient, patient=event.agent)
    if change < verbs:
        count = len(ACTIONS[domain])
        return dataclasses.replace(event, verb=(event.verb + rng.randrange(1, count)) % count)
    return dataclasses.replace(event, negated=not event.negated)


def _told_otherwise(rng: random.Random, domain: Domain, event: Event, said: str) -> tuple[str, Form]:
    """An event told in words other than `said`."""
    while True:
        form = _form(rng)
        if (told := tell(event, form, domain)) != said:
            return told, form


def _names(rng: random.Random, domain: Domain, count: int = 2) -> list[str]:
    return [person.name for person in people(rng, domain, count)]


def draw_same(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Two sentences: 0 they differ in meaning, 1 they mean the same."""
    event = _event(rng, domain, _beings(rng, domain, _names(rng, domain)))
    first = tell(event, _form(rng), domain)
    label = rng.randrange(2)
    second, _ = _told_otherwise(rng, domain, event if label else _altered(rng, domain, event, TASK_ROLES), first)
    return {"first": sentence(first), "second": sentence(second), "label": label}


def draw_choice(rng: random.Random, domain: Domain, language: Language) -> Row:
    """A sentence and two others, `choice0` and `choice1`; the label is the index of the one that means the same."""
    event = _event(rng, domain, _beings(rng, domain, _names(rng, domain)))
    text = tell(event, _form(rng), domain)
    right, form = _told_otherwise(rng, domain, event, text)
    wrong = tell(_altered(rng, domain, event, TASK_ROLES), form, domain)
    while wrong == text:
        wrong, _ = _told_otherwise(rng, domain, _altered(rng, domain, event, TASK_ROLES), text)
    label = rng.randrange(2)
    choices = [sentence(choice) for choice in ((wrong, right) if label else (right, wrong))]
    return {"text": sentence(text), "choice0": choices[0], "choice1": choices[1], "label": label}


def draw_rewrite(rng: random.Random, domain: Domain, language: Language) -> Row:
    """A sentence in `text`, and in `rewritten` the same told from the other end (active and passive change places)."""
    event = _event(rng, domain, _beings(rng, domain, _names(rng, domain)), transfers=0.0)
    form = dataclasses.replace(_form(rng), frame=rng.choice((0, 2)))
    turned = dataclasses.replace(form, passive=not form.passive)
    return {"text": sentence(tell(event, form, domain)), "rewritten": sentence(tell(event, turned, domain))}


def _restated(rng: random.Random, domain: Domain) -> str:
    """A sentence, then the same in other words."""
    event = _event(rng, domain, _beings(rng, domain, _names(rng, domain)))
    form = _form(rng)
    first = tell(event, form, domain)
    turned = dataclasses.replace(form, passive=not form.passive)
    second = tell(event, turned, domain) if rng.random() < 0.6 else _told_otherwise(rng, domain, event, first)[0]
    link = rng.choice(("in other words,", "that is,", "so one may say that", "put in another way,", "this means that", "to say it again,"))
    return f"{sentence(first)} {sentence(f'{link} {second}')}"


def _two_sayings(rng: random.Random, domain: Domain) -> str:
    """Two persons tell what happened; then whether they said the same."""
    names = _names(rng, domain, 4)
    event = _event(rng, domain, _beings(rng, domain, names[2:]))
    first = tell(event, _form(rng), domain)
    same = rng.random() < 0.5
    second, _ = _told_otherwise(rng, domain, event if same else _altered(rng, domain, event, PASSAGE_ROLES), first)
    pair = f"{names[0]} and {names[1]}"
    opening = rng.choice(
        (
            f"{names[0]} said that {first}. {names[1]} said that {second}.",
            f"{sentence(first)} {names[1]} told us that {second}.",
            f"{names[0]} wrote that {first}, and {names[1]} wrote that {second}.",
        )
    )
    about = "the two" if names[0] not in opening else rng.choice(("they", pair, "the two"))
    end = rng.choice(
        (
            f"{about} {'said the same' if same else 'said different things'}",
            f"the meaning was {'the same' if same else 'different'}",
            f"{about} {'agreed' if same else 'did not agree'}",
            f"was it the same? {'Yes, it was the same' if same else 'No, it was different'}",
            f"so {names[1]} was {'right' if same else 'wrong'}",
            f"what was told last was {'true' if same else 'not true'} to the first",
        )
    )
    return f"{opening} {sentence(end)}"


def _three_sayings(rng: random.Random, domain: Domain) -> str:
    """One tells what happened, two repeat it, and one of them has understood."""
    names = _names(rng, domain, 5)
    event = _event(rng, domain, _beings(rng, domain, names[3:]))
    first = tell(event, _form(rng), domain)
    right, form = _told_otherwise(rng, domain, event, first)
    wrong = tell(_altered(rng, domain, event, PASSAGE_ROLES), form, domain)
    place = rng.randrange(2)
    told = (wrong, right) if place else (right, wrong)
    true, false = names[1 + place], names[2 - place]
    end = rng.choice(
        (
            f"What {true} said was the same, and what {false} said was different.",
            f"It was {true} who said the same.",
            f"{true} was right, for {right}.",
            f"Only {false} said something different.",
            f"The {('first', 'second')[place]} of them had it right, for {right}.",
        )
    )
    return f"{sentence(first)} {names[1]} said that {told[0]}. {names[2]} said that {told[1]}. {end}"


def _story(rng: random.Random, domain: Domain) -> str:
    """Two events with the same beings."""
    names = _names(rng, domain)
    beings = _beings(rng, domain, names)
    one = _event(rng, domain, beings)
    two = _event(rng, domain, rng.sample(beings, 2))
    return f"{sentence(tell(one, _form(rng), domain))} {sentence(f'later {tell(two, dataclasses.replace(_form(rng), frame=2), domain)}')}"


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose in which something is told twice or more."""
    (passage,) = rng.choices((_restated, _two_sayings, _three_sayings, _story), weights=(36, 38, 23, 3))
    return passage(rng, domain)


TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="paraphrase_same",
        cluster="paraphrase",
        draw=draw_same,
        key_fields=("first", "second"),
        plain=Template("sentence1: {first} sentence2: {second}", answer_choices=("different", "same"), name="plain"),
        templates=paraphrase_templates.SAME,
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="paraphrase_choice",
        cluster="paraphrase",
        draw=draw_choice,
        key_fields=("text", "choice0", "choice1"),
        plain=Template("sentence: {text} choice1: {choice0} choice2: {choice1}", answer_choices=("{choice0}", "{choice1}"), name="plain"),
        templates=paraphrase_templates.CHOICE,
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="paraphrase_rewrite",
        cluster="paraphrase",
        draw=draw_rewrite,
        key_fields=("text",),
        plain=Template("rewrite: {text}", targets="{rewritten}", name="plain"),
        templates=paraphrase_templates.REWRITE,
        metrics=("exact_match", "rougeL", "bleu"),
    ),
)
