"""Summarising: short stories with one outcome, their one-sentence summary, and near misses of it.

Each story also tells of something that was possible and did not happen; the near miss says that it did. It uses the words of the
story, so only the outcome tells the two apart.
"""

import random
from typing import NamedTuple

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.prose import chance, choose, shuffled, verdict
from prompt_tuning.data.world.story_lexicon import LEXICA
from prompt_tuning.data.world.story_templates import TEMPLATES
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

_CLUSTER = "summarising"


class _Plot(NamedTuple):
    """Ways of telling one kind of story, by domain, its summary, the near miss, and short titles for both.

    Fields: {a} and {b} people with {she}, {her} of {a}; {x} and {y} things; {p} and {q} places; {s} a shop; {t} and {u} towns;
    {v} a vehicle; {f} and {g} foods.
    """

    tellings: dict[Domain, tuple[str, ...]]
    summary: str
    miss: str
    title: str
    wrong_title: str
    fragile: bool = False


# The things that can be broken and mended, for the plots that say so.
_FRAGILE: dict[Domain, tuple[str, ...]] = {
    "in": ("key", "cup", "lamp", "box", "ring", "clock", "basket", "bell", "drum", "pen"),
    "out": ("vase", "flute", "mirror", "kettle"),
}

_PLOTS = (
    _Plot(
        {
            "in": (
                "{a} went to the {s}. There was a {x} and there was a {y}. The {y} cost too much. So {she} paid for the {x}.",
                "At the {s} {a} saw a {y} and a {x}. {She} did not need the {y}. {She} took the {x} and paid for it.",
            ),
            "out": (
                "A {y} was shown to {a} at the {s}, and then a {x}. The {y} was of no use. {She} gave all {her} money for the {x}.",
                "{a} had come to the {s} for a {y}. But every {y} was gone. In the end {she} left with a {x}.",
            ),
        },
        "{a} bought a {x} at the {s}.",
        "{a} bought a {y} at the {s}.",
        "{a} buys a {x}",
        "{a} buys a {y}",
    ),
    _Plot(
        {
            "in": (
                "{a} lost {her} {x}. {She} looked in the {p}, but it was not there. At last it was found in the {q} by {b}.",
                "The {x} of {a} was gone. {b} helped to look for it. It was not in the {p}. Then {b} saw it in the {q}.",
            ),
            "out": (
                "Nobody knew where the {x} of {a} was. Some said in the {p}, but they were wrong. {b} went to the {q}, and there it lay.",
                "{a} could not say what had become of {her} {x}. {b} looked round the {q} and came back with it. The {p} had been empty.",
            ),
        },
        "{b} found the {x} of {a} in the {q}.",
        "{b} found the {x} of {a} in the {p}.",
        "A {x} found in the {q}",
        "A {x} found in the {p}",
    ),
    _Plot(
        {
            "in": (
                "It was the birthday of {a}. {b} came with a {x}. {a} was very glad and said thanks.",
                "{b} had a {x}. {a} had always wanted one. So {b} let {a} have it.",
            ),
            "out": (
                "{a} opened the parcel and there was a {x}. It had come from {b}. They were friends from that day on.",
                "For weeks {b} had worked on a {x}. Now it was ready. It was meant for {a}, who cried for joy.",
            ),
        },
        "{b} gave a {x} to {a}.",
        "{a} gave a {x} to {b}.",
        "{b} makes {a} glad",
        "{a} makes {b} glad",
    ),
    _Plot(
        {
            "in": (
                "{a} wanted to see {u}. The road to {u} was closed. So {she} took the {v} to {t}.",
                "The {v} to {t} was ready. {a} got in. {She} had been in {u} before, and now {she} wanted to see something new.",
            ),
            "out": (
                "{a} stood before the {v} with {her} bags. {u} was too far away. A ride to {t} was cheap, and {she} took it.",
                "All {her} life {a} had dreamed of {u}. But the {v} only went to {t}. That was good enough for {a}.",
            ),
        },
        "{a} went to {t} by {v}.",
        "{a} went to {u} by {v}.",
        "{a} goes to {t}",
        "{a} goes to {u}",
    ),
    _Plot(
        {
            "in": (
                "The {x} of {a} was broken. {a} did not know what to do. {b} came and worked on it all day. Then it was as good as new.",
                "{b} is good at mending things. {a} had a broken {x}. Now it is no longer broken.",
            ),
            "out": (
                "One morning the {x} that {a} owned fell to pieces. It was {b} who put it together again. {a} just looked on.",
                "It took {b} an hour, and then the old {x} was whole again. How glad {a} was to have it back!",
            ),
        },
        "{b} mended the {x} of {a}.",
        "{a} mended the {x} of {b}.",
        "{b} mends a {x}",
        "{a} mends a {x}",
        fragile=True,
    ),
    _Plot(
        {
            "in": (
                "{a} and {b} ran a race. At first {a} was in front. But {b} was faster in the end.",
                "{b} and {a} ran to the {p}. {a} fell on the way. {b} was there first.",
            ),
            "out": (
                "{a} began like the wind and soon was tired. {b} began slowly. At the line {b} was far ahead of {a}.",
                "Everybody thought that nobody could run like {a}. That day {b} ran too. {a} came in second.",
            ),
        },
        "{b} won a race against {a}.",
        "{a} won a race against {b}.",
        "{b} wins the race",
        "{a} wins the race",
    ),
    _Plot(
        {
            "in": (
                "{a} was hungry. On the table there was a {f} and a {g}. {a} did not like the {g}. Soon the {f} was gone.",
                "{a} came home for dinner. The {g} was cold. The {f} was warm. So {she} had the {f}.",
            ),
            "out": (
                "What a smell came from the {f}! {a} pushed the {g} aside. A minute later the plate was empty.",
                "A {g} had gone bad, so {a} threw it away. {She} was still hungry. Luckily a {f} was left.",
            ),
        },
        "{a} ate a {f}.",
        "{a} ate a {g}.",
        "{a} eats a {f}",
        "{a} eats a {g}",
    ),
)


class _Tale(NamedTuple):
    story: str
    summary: str
    miss: str
    title: str
    wrong_title: str


def _tale(rng: random.Random, domain: Domain) -> _Tale:
    lexicon = LEXICA[domain]
    plot = choose(rng, _PLOTS)
    one, two = rng.sample(lexicon.people, 2)
    x, y = rng.sample(_FRAGILE[domain] if plot.fragile else lexicon.things, 2)
    p, q = rng.sample(lexicon.places, 2)
    t, u = rng.sample(lexicon.towns, 2)
    f, g = rng.sample(lexicon.kinds[1], 2)
    values = {"a": one.name, "b": two.name, "she": one.she, "She": one.she.capitalize(), "her": one.her, "x": x, "y": y, "p": p, "q": q}
    values |= {"t": t, "u": u, "f": f, "g": g, "s": choose(rng, lexicon.shops), "v": choose(rng, lexicon.vehicles)}
    story = choose(rng, plot.tellings[domain])
    return _Tale(*(text.format_map(values) for text in (story, plot.summary, plot.miss, plot.title, plot.wrong_title)))


_ENDINGS = (
    "In short, {m}",
    "So in one sentence, {m}",
    "To put it briefly, {m}",
    "What happened was this: {m}",
    "That is how it came that {m}",
    "When people told of it later, they only said: {m}",
)
_TITLE_ENDINGS = (
    "The title of this story is {t}.",
    "A good title would be {t}, and a bad one would be {w}.",
    "Is the better title {c} or {d}? The better title is {t}.",
    "Of the titles {c} and {d}, only {t} is right.",
)
_SUMMARY_ENDINGS = (
    "Which is right, {c} or {d}? It is right to say: {m}",
    "One might sum it up as {c} or as {d}, but only this is right: {m}",
)


def passages(rng: random.Random, domain: Domain) -> str:
    """A story and, in a sentence or two, what it comes to."""
    tale = _tale(rng, domain)
    kind = rng.random()
    if kind < 0.45:
        ending = choose(rng, _ENDINGS).format(m=tale.summary)
    elif kind < 0.62:
        c, d = shuffled(rng, (tale.title, tale.wrong_title))
        ending = choose(rng, _TITLE_ENDINGS).format(t=tale.title, w=tale.wrong_title, c=c, d=d)
    elif kind < 0.75:
        c, d = shuffled(rng, (tale.summary.rstrip("."), tale.miss.rstrip(".")))
        ending = choose(rng, _SUMMARY_ENDINGS).format(m=tale.summary, c=c, d=d)
    else:
        truth = chance(rng, 0.5)
        ending = verdict(rng, (tale.summary if truth else tale.miss).rstrip("."), truth)
    return f"{tale.story} {ending}"


def _draw_summary(rng: random.Random, domain: Domain, language: Language) -> Row:
    tale = _tale(rng, domain)
    return {"story": tale.story, "summary": tale.summary}


def _draw_title(rng: random.Random, domain: Domain, language: Language) -> Row:
    tale = _tale(rng, domain)
    titles = shuffled(rng, (tale.title, tale.wrong_title))
    row: Row = {"story": tale.story, "wrong_title": tale.wrong_title, "label": titles.index(tale.title)}
    return row | {"choice0": titles[0], "choice1": titles[1]}


def _draw_check(rng: random.Random, domain: Domain, language: Language) -> Row:
    tale = _tale(rng, domain)
    label = rng.randrange(2)
    return {"story": tale.story, "summary": tale.summary if label else tale.miss, "label": label}


TASKS = (
    WorldTask(
        name="story_summary",
        cluster=_CLUSTER,
        draw=_draw_summary,
        key_fields=("story",),
        plain=Template("summarize: {story}", "{summary}", name="plain"),
        templates=TEMPLATES["story_summary"],
        metrics=("rougeL", "rouge1", "rouge2"),
    ),
    WorldTask(
        name="story_title",
        cluster=_CLUSTER,
        draw=_draw_title,
        key_fields=("story", "choice0", "choice1"),
        plain=Template("story: {story} titles: {choice0}, {choice1}", "{answer}", ("{choice0}", "{choice1}"), name="plain"),
        templates=TEMPLATES["story_title"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="summary_check",
        cluster=_CLUSTER,
        draw=_draw_check,
        key_fields=("story", "summary"),
        plain=Template("story: {story} summary: {summary}", "{answer}", ("wrong", "right"), name="plain"),
        templates=TEMPLATES["summary_check"],
        metrics=("accuracy", "f1_macro"),
    ),
)
