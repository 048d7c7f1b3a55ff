"""Order: who of three is the tallest, does a comparison follow from two others, which of two things came first.

`ordering_most` and `ordering_follows` can also be drawn in Tavi.
Out of domain the names, the qualities, the deeds and the sentences are others.
"""

import dataclasses
import random
from collections.abc import Mapping

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.clusters.words_lexicon import NAMES, capital, people, pronoun
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask
from prompt_tuning.data.world.tavi import Tavi, coin


@dataclasses.dataclass(frozen=True)
class Quality:
    """Two opposite adjectives, each plain, compared and at its most."""

    up: tuple[str, str, str]
    down: tuple[str, str, str]


QUALITIES: Mapping[Domain, tuple[Quality, ...]] = {
    "in": (
        Quality(("tall", "taller", "tallest"), ("short", "shorter", "shortest")),
        Quality(("old", "older", "oldest"), ("young", "younger", "youngest")),
        Quality(("fast", "faster", "fastest"), ("slow", "slower", "slowest")),
    ),
    "out": (
        Quality(("strong", "stronger", "strongest"), ("weak", "weaker", "weakest")),
        Quality(("rich", "richer", "richest"), ("poor", "poorer", "poorest")),
    ),
}
DEEDS: Mapping[Domain, tuple[str, ...]] = {
    "in": (
        *("swept the floor", "washed the dog", "baked the bread", "fed the cat", "painted the door", "called a friend"),
        *("read the paper", "closed the window", "made the tea", "cut the grass", "cleaned the lamp", "wrote a letter"),
    ),
    "out": (
        *("fixed the roof", "sold the rabbit", "packed the bag", "moved the bed", "opened the shop", "counted the money"),
        *("watered the plants", "printed the map", "locked the gate", "heard the bell", "emptied the box", "mended the net"),
    ),
}
# How a chain of three is told: what stands between the two comparisons.
_LINKS: Mapping[Domain, tuple[str, ...]] = {"in": (". ",), "out": (", and ", ", while ")}
# How two deeds are told: (sentence, whether the deed named first came first).
_EVENTS: Mapping[Domain, tuple[tuple[str, bool], ...]] = {
    "in": (
        ("{name} {first} before {pronoun} {second}.", True),
        ("{name} {first} after {pronoun} {second}.", False),
        ("After {pronoun} {first}, {name} {second}.", True),
        ("Before {pronoun} {first}, {name} {second}.", False),
    ),
    "out": (
        ("{name} had already {first} when {pronoun} {second}.", True),
        ("When {pronoun} {first}, {name} had already {second}.", False),
        ("Earlier {name} {first}, and later {pronoun} {second}.", True),
        ("Later {name} {first}, and earlier {pronoun} {second}.", False),
    ),
}
TAVI = Tavi(coin((side[0] for both in QUALITIES.values() for quality in both for side in (quality.up, quality.down)), "adjective"))


def _compare(upper: str, lower: str, quality: Quality, *, upward: bool, language: Language) -> str:
    """A clause without its stop that says `upper` has more of the quality than `lower`, from either end."""
    side = quality.up if upward else quality.down
    subject, other = (upper, lower) if upward else (lower, upper)
    if language == "tavi":
        return TAVI.clause("be", subject, complement=("more", side[0], "than", other))
    return f"{subject} is {side[1]} than {other}"


def _chain(rng: random.Random, domain: Domain, language: Language) -> tuple[str, list[str], Quality]:
    """Three people told in two comparisons in any order, the people from most to least, the quality."""
    names = people(rng, domain, 3)
    quality = rng.choice(QUALITIES[domain])
    pairs = ((names[0], names[1]), (names[1], names[2]))
    clauses = [_compare(upper, lower, quality, upward=rng.random() < 0.5, language=language) for upper, lower in pairs]
    rng.shuffle(clauses)
    if language == "tavi":
        return TAVI.say(*clauses), names, quality
    return capital(rng.choice(_LINKS[domain]).join(clauses)) + ".", names, quality


def _draw_most(rng: random.Random, domain: Domain, language: Language) -> Row:
    text, names, quality = _chain(rng, domain, language)
    up = rng.random() < 0.5
    answer = names[0] if up else names[2]
    choices = rng.sample(names, 3)
    row: Row = {"text": text, "most": (quality.up if up else quality.down)[2], "label": choices.index(answer)}
    return row | {f"choice{index}": choice for index, choice in enumerate(choices)}


def _draw_follows(rng: random.Random, domain: Domain, language: Language) -> Row:
    text, names, quality = _chain(rng, domain, language)
    label = rng.randrange(2)
    pair = (names[0], names[2]) if label else (names[2], names[0])
    claim = _compare(*pair, quality, upward=rng.random() < 0.5, language=language)
    return {"text": text, "claim": capital(claim) + ".", "label": label}


def _events(rng: random.Random, domain: Domain) -> tuple[str, str, list[str], bool]:
    """A sentence on two deeds, who did them, the deeds as named, and whether the first named came first."""
    name = rng.choice(NAMES[domain])
    deeds = rng.sample(DEEDS[domain], 2)
    frame, in_order = rng.choice(_EVENTS[domain])
    text = capital(frame.format(name=name, pronoun=pronoun(name), first=deeds[0], second=deeds[1]))
    return text, name, deeds, in_order


def _draw_first(rng: random.Random, domain: Domain, language: Language) -> Row:
    """Two deeds as `event0` and `event1`, in any order: the label is the index of the one that came first."""
    text, name, deeds, in_order = _events(rng, domain)
    first = deeds[0] if in_order else deeds[1]
    events = rng.sample(deeds, 2)
    return {"text": text, "name": name, "event0": events[0], "event1": events[1], "label": events.index(first)}


def _say_most(rng: random.Random, domain: Domain) -> str:
    text, names, quality = _chain(rng, domain, "english")
    ends = []
    for name, side in rng.sample([(names[0], quality.up), (names[2], quality.down)], 2):
        most = side[2]
        ends.append(
            rng.choice(
                (
                    f"So the {most} is {name}.",
                    f"{name} is the {most} of all.",
                    f"Who is the {most} here? That would be {name}.",
                    f"The {most} one was {name}.",
                    f"None of them is {side[1]} than {name}.",
                )
            )
        )
    return " ".join([text, *ends])


def _say_follows(rng: random.Random, domain: Domain) -> str:
    """A chain, or a single comparison, and two judgements on claims about it."""
    if rng.random() < 0.4:
        upper, lower = people(rng, domain, 2)
        quality = rng.choice(QUALITIES[domain])
        text = _compare(upper, lower, quality, upward=rng.random() < 0.5, language="english") + "."
    else:
        text, (upper, _, lower), quality = _chain(rng, domain, "english")
    return " ".join([text, *(_judged(rng, domain, upper, lower, quality) for _ in range(2))])


def _judged(rng: random.Random, domain: Domain, upper: str, lower: str, quality: Quality) -> str:
    """A claim on two people, of whom `upper` has more of the quality, and whether it is right."""
    upward = rng.random() < 0.5
    right = rng.random() < 0.5
    pair = (upper, lower) if right else (lower, upper)
    claim = _compare(*pair, quality, upward=upward, language="english")
    subject, rest = claim.split(" is ")
    judge = rng.choice([name for name in NAMES[domain] if name not in pair])
    if right:
        ends = (
            f"Is {subject} {rest}? Yes.",
            f"{claim}? Yes.",
            f"{judge} said that {claim}, and that is true.",
            f"{judge} thinks that {claim}. {judge} is right.",
            f"Therefore {claim}.",
            f"Does it follow that {claim}? Yes, it does.",
            f"{claim}, that is true.",
        )
    else:
        truth = _compare(upper, lower, quality, upward=not upward, language="english")
        ends = (
            f"Is {subject} {rest}? No.",
            f"{claim}? No.",
            f"{judge} said that {claim}, and that is false.",
            f"{judge} thinks that {claim}. {judge} is wrong.",
            f"Therefore {subject} is not {rest}.",
            f"Does it follow that {claim}? No, {truth}.",
            f"{claim}, that is false.",
        )
    return rng.choice(ends)


def _say_events(rng: random.Random, domain: Domain) -> str:
    text, name, deeds, in_order = _events(rng, domain)
    first, second = deeds if in_order else deeds[::-1]
    who = capital(pronoun(name))
    ends = (
        f"So first {pronoun(name)} {first}.",
        f"The first thing was that {name} {first}.",
        f"What did {name} do first? {who} {first}.",
        f"{who} {first} first and {second} last.",
        f"In the beginning {name} {first}, and in the end {pronoun(name)} {second}.",
        f"{who} {second} only later.",
        f"What did {name} do last? {who} {second}.",
    )
    return " ".join([text, *rng.sample(ends, 2)])


def _say_plain(rng: random.Random, domain: Domain) -> str:
    first, second = people(rng, domain, 2)
    quality = rng.choice(QUALITIES[domain])
    one, two = rng.sample(DEEDS[domain], 2)
    return rng.choice(
        (
            f"{first} is {quality.up[1]} than {second}, so {second} is {quality.down[1]} than {first}.",
            f"{first} is {quality.down[1]} than {second}. That means that {second} is {quality.up[1]}.",
            f"{first} is {quality.up[1]} than {second}. The {quality.up[1]} one is {first}, the {quality.down[1]} one is {second}.",
            f"{first} is {quality.down[1]} than {second}. The {quality.up[1]} one is {second}, the {quality.down[1]} one is {first}.",
            f"{first} {one} and {second} {two}. Both were tired.",
        )
    )


def _say_tavi(rng: random.Random, domain: Domain) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        upper, lower = people(rng, domain, 2)
        quality, upward = rng.choice(QUALITIES[domain]), rng.random() < 0.5
        tavi, english = (_compare(upper, lower, quality, upward=upward, language=language) for language in ("tavi", "english"))
        return f"{TAVI.say(tavi)} In English, {english}."
    text, names, quality = _chain(rng, domain, "tavi")
    if kind == 1:
        name, side = rng.choice(((names[0], quality.up), (names[2], quality.down)))
        most = TAVI.say(TAVI.clause("be", name, complement=("most", side[0])))
        return f"{text} {rng.choice((most, f'So the {side[2]} is {name}.', f'{name} is the {side[2]} of all.'))}"
    right = rng.random() < 0.5
    pair = (names[0], names[2]) if right else (names[2], names[0])
    claim = _compare(*pair, quality, upward=rng.random() < 0.5, language="tavi")
    if kind == 2:
        return f"{text} {TAVI.say(claim + ' kai')} {rng.choice(('Eja', 'Yes') if right else ('Nela', 'No'))}."
    return f"{text} {TAVI.say(claim)} {rng.choice(('That is true.', 'That is right.') if right else ('That is false.', 'That is wrong.'))}"


_SKILLS = (_say_most, _say_follows, _say_events, _say_plain, _say_tavi)
_WEIGHTS = (29, 27, 23, 13, 8)


def passages(rng: random.Random, domain: Domain) -> str:
    """One passage of prose on who or what comes first (1 to 4 sentences), one in ten of them in Tavi."""
    return rng.choices(_SKILLS, _WEIGHTS)[0](rng, domain)


_CLASSIFIED = ("accuracy", "f1_macro")
_NO_YES = ("no", "yes")
_CHOICES = ("{choice0}", "{choice1}", "{choice2}")
_EVENT_CHOICES = ("{event0}", "{event1}")
_EVENT_CHOICES_TURNED = ("{event1}", "{event0}")

TASKS: tuple[WorldTask, ...] = (
    WorldTask(
        name="ordering_most",
        cluster="ordering",
        draw=_draw_most,
        key_fields=("text", "most"),
        plain=Template("order: {text} find: {most}", answer_choices=_CHOICES, name="plain"),
        templates=(
            Template("{text}\nWho is the {most}?", answer_choices=_CHOICES, name="who"),
            Template("Three people are compared. {text} Name the {most} of them.", answer_choices=_CHOICES, name="name"),
            Template("{text} Which of the three is the {most}?\n{options}", answer_choices=_CHOICES, name="which"),
            Template("Put the people in order. {text} The {most} is", answer_choices=_CHOICES, name="put"),
            Template("Find the {most} person.\n{text}\nAnswer:", answer_choices=_CHOICES, name="find"),
            Template("Asked for: the {most}\nTold: {text}\nName:", answer_choices=_CHOICES, name="fields"),
            Template("{choice0}, {choice1} or {choice2}: who must be the {most}? {text}", answer_choices=_CHOICES, name="must"),
            Template("Given the lines below, decide who is the {most}.\n\n{text}\n\n{options}", answer_choices=_CHOICES, name="decide"),
            Template(
                "Compare {choice0}, {choice1} and {choice2} so that {answer} is the {most}.", "{text}", _CHOICES, True, name="compare"
            ),
            Template("Write two comparisons from which it follows that {answer} is the {most}.", "{text}", _CHOICES, True, name="write"),
        ),
        metrics=_CLASSIFIED,
        languages=("english", "tavi"),
    ),
    WorldTask(
        name="ordering_follows",
        cluster="ordering",
        draw=_draw_follows,
        key_fields=("text", "claim"),
        plain=Template("order: {text} claim: {claim}", answer_choices=_NO_YES, name="plain"),
        templates=(
            Template("{text}\nDoes this follow? {claim}", answer_choices=_NO_YES, name="follow"),
            Template("{text} Is it so that: {claim}\n{options}", answer_choices=_NO_YES, name="so"),
            Template("We know this. {text}\nTrue or false? {claim}", answer_choices=("false", "true"), name="true"),
            Template("Judge the claim by what is told.\nTold: {text}\nClaim: {claim}", answer_choices=("wrong", "right"), name="judge"),
            Template("Is the last sentence right? {text} {claim}", answer_choices=_NO_YES, name="last"),
            Template("Claim: {claim}\nGiven: {text}\nThe claim is:\n{options}", answer_choices=("false", "true"), name="given"),
            Template("Can all three of these hold at once? {text} {claim}", answer_choices=_NO_YES, name="hold"),
            Template("{text}\nDoes the next line contradict this? {claim}", answer_choices=("yes", "no"), name="contradict"),
            Template("{text} Write something that is {answer}.", "{claim}", ("false", "true"), turned_around=True, name="write"),
            Template(
                "It is {answer} to say: {claim} What do we know of the three?",
                "{text}",
                ("wrong", "right"),
                turned_around=True,
                name="know",
            ),
        ),
        metrics=_CLASSIFIED,
        languages=("english", "tavi"),
    ),
    WorldTask(
        name="ordering_first",
        cluster="ordering",
        draw=_draw_first,
        key_fields=("text",),
        plain=Template("first: {text}", answer_choices=_EVENT_CHOICES, name="plain"),
        templates=(
            Template("{text}\nWhat did {name} do first?", answer_choices=_EVENT_CHOICES, name="what"),
            Template("Which of the two things happened first? {text}\n{options}", answer_choices=_EVENT_CHOICES, name="which"),
            Template("{text} What came last?", answer_choices=_EVENT_CHOICES_TURNED, name="last"),
            Template("Name the earlier deed of {name}. {text}", answer_choices=_EVENT_CHOICES, name="earlier"),
            Template("{text}\nIs it true that {name} {event0} first?", answer_choices=("yes", "no"), name="true"),
            Template("Put the two deeds in order of time. {text} The first is:", answer_choices=_EVENT_CHOICES, name="order"),
            Template("{text} The later of the two deeds:\n{options}", answer_choices=_EVENT_CHOICES_TURNED, name="later"),
            Template("True or false: {name} {event1} first. {text}", answer_choices=("false", "true"), name="second"),
            Template(
                "{name} did two things and {answer} first. Tell it in a sentence.",
                "{text}",
                _EVENT_CHOICES,
                turned_around=True,
                name="tell",
            ),
            Template(
                "Last of all {name} {answer}. Write what happened in one sentence.", "{text}", _EVENT_CHOICES_TURNED, True, name="write"
            ),
        ),
        metrics=_CLASSIFIED,
    ),
)
