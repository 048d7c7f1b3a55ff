"""Inference over a small taxonomy: what follows from what was said, with the kinds of animals, plants and objects known from the world.

`inference_kind` takes two steps (who drew what; what that is), `inference_entailment` holds a claim against stated properties (true, false,
unknown), `inference_opposite` finds the word that a fact rules out, `inference_odd` the word whose kind is not that of the others.
"""

import random
from typing import NamedTuple

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.clusters import inference_templates
from prompt_tuning.data.world.lexicon import listing, people, sentence, with_article
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask


class Kind(NamedTuple):
    """A kind of things: the class it belongs to, and its members in each domain."""

    top: str
    members: dict[Domain, tuple[str, ...]]


def _kind(top: str, inside: str, outside: str) -> Kind:
    return Kind(top, {"in": tuple(inside.split()), "out": tuple(outside.split())})


KINDS: dict[str, Kind] = {
    "bird": _kind("animal", "robin crow owl swan", "eagle duck raven goose"),
    "fish": _kind("animal", "trout salmon shark pike", "tuna cod carp herring"),
    "tree": _kind("plant", "oak pine birch elm", "maple cedar beech willow"),
    "flower": _kind("plant", "rose lily tulip daisy", "violet orchid primrose poppy"),
    "tool": _kind("object", "hammer axe drill rake", "spade chisel shovel wrench"),
    "vehicle": _kind("object", "car bus truck train", "tram taxi wagon van"),
}
KIND_OF: dict[str, str] = {word: name for name, kind in KINDS.items() for members in kind.members.values() for word in members}
TOPS: dict[str, tuple[str, ...]] = {
    top: tuple(name for name, kind in KINDS.items() if kind.top == top) for top in ("animal", "plant", "object")
}

# Pairs of opposites: of each, a thing has one side, or nothing is said.
OPPOSITES: dict[Domain, tuple[tuple[str, str], ...]] = {
    "in": (("big", "small"), ("black", "white"), ("old", "new"), ("wet", "dry"), ("warm", "cold")),
    "out": (("heavy", "light"), ("hard", "soft"), ("smooth", "rough"), ("red", "blue")),
}
# What a person does with a thing: active, and passive.
VERBS: dict[Domain, tuple[tuple[str, str], ...]] = {
    "in": (("drew", "drawn"), ("painted", "painted"), ("named", "named")),
    "out": (("sketched", "sketched"), ("described", "described"), ("chose", "chosen")),
}


class Scene(NamedTuple):
    """Persons and their things, no two of one class, and the text that tells it."""

    text: str
    verb: str
    owners: tuple[str, ...]
    things: tuple[str, ...]


def _scene(rng: random.Random, domain: Domain, count: int) -> Scene:
    things = tuple(_member(rng, domain, rng.choice(TOPS[top])) for top in rng.sample(tuple(TOPS), count))
    owners = tuple(person.name for person in people(rng, domain, count))
    verb, participle = rng.choice(VERBS[domain])
    if domain == "in":
        text = " ".join(f"{name} {verb} {with_article(thing)}." for name, thing in zip(owners, things, strict=True))
    else:
        named = [f"{with_article(thing)} was {participle} by {name}" for name, thing in zip(owners, things, strict=True)]
        text = sentence(listing(named))
    return Scene(text, verb, owners, things)


def _member(rng: random.Random, domain: Domain, kind: str) -> str:
    return rng.choice(KINDS[kind].members[domain])


def _class_of(word: str, top: bool) -> str:
    kind = KIND_OF[word]
    return KINDS[kind].top if top else kind


def draw_kind(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Who drew what, and a claim on what kind of thing one of them drew: 0 false, 1 true.

    A false claim names the class of another person's thing, so that both steps are needed.
    """
    scene = _scene(rng, domain, rng.choice((2, 2, 3)))
    asked, other = rng.sample(range(len(scene.owners)), 2)
    label = rng.randrange(2)
    named = _class_of(scene.things[asked if label else other], rng.random() < 0.5)
    hypothesis = f"{scene.owners[asked]} {scene.verb} {with_article(named)}."
    return {"text": scene.text, "hypothesis": hypothesis, "person": scene.owners[asked], "label": label}


class Facts(NamedTuple):
    """One or two things with two properties each: thing -> {index of the pair of opposites: side}."""

    text: str
    properties: dict[str, dict[int, int]]


def _facts(rng: random.Random, domain: Domain, count: int = 2) -> Facts:
    pairs = OPPOSITES[domain]
    things = [_member(rng, domain, rng.choice(TOPS[top])) for top in rng.sample(tuple(TOPS), count)]
    shared = rng.randrange(len(pairs))
    properties: dict[str, dict[int, int]] = {}
    for thing in things:
        other = rng.choice([index for index in range(len(pairs)) if index != shared])
        both = [shared, other] if rng.random() < 0.4 else rng.sample(range(len(pairs)), 2)
        rng.shuffle(both)
        properties[thing] = {index: rng.randrange(2) for index in both}
    words = [[pairs[index][side] for index, side in properties[thing].items()] for thing in things]
    if domain == "in":
        text = " ".join(f"The {thing} was {one} and {two}." for thing, (one, two) in zip(things, words, strict=True))
    else:
        text = " ".join(f"There was {with_article(f'{one}, {two} {thing}')}." for thing, (one, two) in zip(things, words, strict=True))
    return Facts(text, properties)


def _claim(rng: random.Random, domain: Domain, facts: Facts, answer: int) -> tuple[str, str]:
    """A claim about one of the things that is true (0), false (1) or unknown (2): subject and predicate."""
    pairs = OPPOSITES[domain]
    things = rng.sample(tuple(facts.properties), len(facts.properties))
    thing, other = things[0], things[-1]
    known = facts.properties[thing]
    if answer == 2:
        near = [index for index in facts.properties[other] if index not in known]
        far = [index for index in range(len(pairs)) if index not in known]
        index = rng.choice(near if near and rng.random() < 0.8 else far)
        side, negated = rng.randrange(2), rng.random() < 0.2
    else:
        index = rng.choice(tuple(known))
        negated = rng.random() < 0.2
        side = known[index] if (answer == 0) != negated else 1 - known[index]
    subject = f"the {_class_of(thing, rng.random() < 0.5)}" if rng.random() < 0.2 else f"the {thing}"
    return subject, f"was {'not ' if negated else ''}{pairs[index][side]}"


def draw_entailment(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Facts about two things and a claim: 0 true, 1 false, 2 unknown (the facts do not say)."""
    facts = _facts(rng, domain)
    label = rng.randrange(3)
    subject, predicate = _claim(rng, domain, facts, label)
    return {"text": facts.text, "hypothesis": sentence(f"{subject} {predicate}"), "label": label}


def _odd_set(rng: random.Random, domain: Domain) -> tuple[list[str], int]:
    """Four words, three of them of one kind, and the index of the other, which is of another class."""
    kind = rng.choice(tuple(KINDS))
    words = rng.sample(KINDS[kind].members[domain], 3)
    odd = rng.choice([name for name in KINDS if KINDS[name].top != KINDS[kind].top])
    place = rng.randrange(4)
    words.insert(place, _member(rng, domain, odd))
    return words, place


def draw_odd(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Four words in `text` and as `choice0`..`choice3`; the label is the index of the one that does not belong."""
    words, place = _odd_set(rng, domain)
    text = listing(words) if domain == "in" else listing([f"the {word}" for word in words])
    kinds = {f"choice{index}": word for index, word in enumerate(words)}
    return {"text": text, **kinds, "kind": KIND_OF[words[place - 1]], "label": place}


def draw_opposite(rng: random.Random, domain: Domain, language: Language) -> Row:
    """A fact about a thing and three words; the label is the index of the one that the fact rules out, its opposite."""
    pairs = OPPOSITES[domain]
    told, *others = rng.sample(range(len(pairs)), 3)
    thing = _member(rng, domain, rng.choice(tuple(KINDS)))
    side = rng.randrange(2)
    answer = pairs[told][1 - side]
    choices = rng.sample([answer, *(rng.choice(pairs[other]) for other in others)], 3)
    text = f"The {thing} was {pairs[told][side]}." if domain == "in" else f"There was {with_article(f'{pairs[told][side]} {thing}')}."
    return {"text": text, "thing": thing, "label": choices.index(answer)} | {f"choice{i}": word for i, word in enumerate(choices)}


def _kinds(rng: random.Random, domain: Domain) -> str:
    """Who drew what, then what follows for two or all of them."""
    scene = _scene(rng, domain, rng.choice((2, 2, 3)))
    parts = [scene.text]
    order = rng.sample(range(len(scene.owners)), len(scene.owners))
    for asked, other in zip(order, (*order[1:], order[0]), strict=True):
        name, thing = scene.owners[asked], scene.things[asked]
        top = rng.random() < 0.5
        mine, theirs = with_article(_class_of(thing, top)), with_article(_class_of(scene.things[other], top))
        if rng.random() < 0.4:  # a class of nothing that is there
            theirs = with_article(rng.choice([name for name in (TOPS if top else KINDS) if name != _class_of(thing, top)]))
        true = rng.random() < 0.5
        named = mine if true else theirs
        parts.append(
            rng.choice(
                (
                    f"So {name} {scene.verb} {mine}.",
                    f"What {name} {scene.verb} was {mine}.",
                    f"It was {name} who {scene.verb} {mine}.",
                    f"The {_class_of(thing, top)} was the work of {name}.",
                    f"Was it {named} that {name} {scene.verb}? {f'Yes, it was {mine}' if true else f'No, it was {mine}'}.",
                    f"Someone said that {name} {scene.verb} {named}. That was {'true' if true else 'false'}.",
                    f"One could say that {name} {scene.verb} {named}, and that would be {'right' if true else 'wrong'}.",
                )
            )
        )
    return " ".join(parts)


def _entailments(rng: random.Random, domain: Domain) -> str:
    facts = _facts(rng, domain, rng.choice((1, 1, 1, 2, 2)))  # a single thing is the easy case, from which a learner sets out
    parts = [facts.text]
    for _ in range(rng.choice((2, 3))):
        answer = rng.randrange(3)
        subject, predicate = _claim(rng, domain, facts, answer)
        name = people(rng, domain)[0].name
        verdict = ("true", "false", "unknown")[answer]
        bare = predicate.removeprefix("was ")
        parts.append(
            rng.choice(
                (
                    f"{name} said that {subject} {predicate}. That was {verdict}.",
                    f"{name} said that {subject} {predicate}. That was {verdict}.",
                    f"{sentence(f'{subject} {predicate}')} That is {verdict}.",
                    f"Was {subject} {bare}? {('Yes', 'No', 'Maybe')[answer]}, that is {verdict}.",
                    f"{name} asked whether {subject} {predicate}. {('Yes', 'No', 'Maybe')[answer]}, said the teacher.",
                )
            )
        )
    return " ".join(parts)


def _odd_words(rng: random.Random, domain: Domain) -> str:
    words, place = _odd_set(rng, domain)
    name = people(rng, domain)[0].name
    odd, kind = words[place], KIND_OF[words[place - 1]]
    listed = [listing(words), listing([with_article(word) for word in words]), listing([f"the {word}" for word in words])]
    opening = rng.choice(
        (
            f"{name} wrote {listed[0]} on a page.",
            f"{name} had a card with {listed[1]}.",
            f"{name} looked at {listed[2]}.",
            f"There were four words on the wall, {listed[0]}.",
        )
    )
    end = rng.choice(
        (
            f"The {odd} did not belong there.",
            f"The odd one was the {odd}.",
            f"The odd word was {odd}.",
            f"All but the {odd} were of one kind.",
            f"One was not {with_article(kind)}, and that was the {odd}.",
            f"Three were of the kind {kind}, and one was {with_article(KIND_OF[odd])}, the {odd}.",
        )
    )
    return f"{opening} {end}"


def _lore(rng: random.Random, domain: Domain) -> str:
    """Plain facts of the taxonomy."""
    kind = rng.choice(tuple(KINDS))
    one, two, three = rng.sample(KINDS[kind].members[domain], 3)
    other = rng.choice([name for name in KINDS if KINDS[name].top != KINDS[kind].top])
    top, far = with_article(KINDS[kind].top), with_article(KINDS[other].top)
    a_kind, a_other = with_article(kind), with_article(other)
    facts = [
        f"{sentence(with_article(one))[:-1]} is {a_kind}, and {a_kind} is {top}.",
        f"Every {two} is {a_kind}.",
        f"Every {kind} is {top}.",
        f"So {with_article(three)} is {top}.",
        f"No {one} is {a_other}.",
        f"Is {with_article(two)} {a_kind}? Yes, and it is {top}, not {far}.",
        f"The {one}, the {two} and the {three} are all of one kind, {kind}.",
        f"It is {'true' if rng.random() < 0.5 else 'right'} to call {with_article(three)} {top}.",
        f"{sentence(with_article(three))[:-1]} is not {far}.",
    ]
    return " ".join(rng.sample(facts, rng.choice((3, 4))))


def _opposites(rng: random.Random, domain: Domain) -> str:
    """What has one of two opposites has not the other."""
    parts = []
    for top in rng.sample(tuple(TOPS), 3):
        thing = _member(rng, domain, rng.choice(TOPS[top]))
        one, two = rng.sample(rng.choice(OPPOSITES[domain]), 2)
        parts.append(
            rng.choice(
                (
                    f"The {thing} was {one}, not {two}.",
                    f"What is not {one} is {two}.",
                    f"Is {one} the same as {two}? No.",
                    f"The {thing} was {one}. So it is false that the {thing} was {two}.",
                    f"The {thing} was not {one}, so it was {two}.",
                    f"The {thing} was {one}. That it was {one} is true.",
                )
            )
        )
    return " ".join(parts)


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose on things, their kinds and their properties."""
    (passage,) = rng.choices((_kinds, _entailments, _odd_words, _lore, _opposites), weights=(30, 36, 14, 12, 8))
    return passage(rng, domain)


TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="inference_kind",
        cluster="inference",
        draw=draw_kind,
        key_fields=("text", "hypothesis"),
        plain=Template("hypothesis: {hypothesis} premise: {text}", answer_choices=("false", "true"), name="plain"),
        templates=inference_templates.KIND,
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="inference_entailment",
        cluster="inference",
        draw=draw_entailment,
        key_fields=("text", "hypothesis"),
        plain=Template("hypothesis: {hypothesis} premise: {text}", answer_choices=("true", "false", "unknown"), name="plain"),
        templates=inference_templates.ENTAILMENT,
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="inference_opposite",
        cluster="inference",
        draw=draw_opposite,
        key_fields=("text", "choice0", "choice1", "choice2"),
        plain=Template(
            "premise: {text} words: {choice0}, {choice1}, {choice2}", answer_choices=("{choice0}", "{choice1}", "{choice2}"), name="plain"
        ),
        templates=inference_templates.OPPOSITE,
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="inference_odd",
        cluster="inference",
        draw=draw_odd,
        key_fields=("text",),
        plain=Template("words: {text}", answer_choices=("{choice0}", "{choice1}", "{choice2}", "{choice3}"), name="plain"),
        templates=inference_templates.ODD,
        metrics=("accuracy", "f1_macro"),
    ),
)
