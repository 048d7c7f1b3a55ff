"""Closed-book facts: where each of 84 people lives and what each does for a living (168 facts, fixed for ever).

The pretraining passages state each fact in many frames; a task gives the person and asks. The splits are apart by person, so that
nothing about the people of the test split can be learned from the training split.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from prompt_tuning.data.templates import Template
from prompt_tuning.data.world.prose import a, chance, choose, shuffled, verdict
from prompt_tuning.data.world.story_lexicon import LEXICA, SURNAMES
from prompt_tuning.data.world.story_templates import TEMPLATES
from prompt_tuning.data.world.task import Domain, Language, Row, WorldTask

T = TypeVar("T")

_CLUSTER = "facts"
# Chosen so that every split of every task holds several people.
_SEED = 1434


class Citizen(NamedTuple):
    """A person of the knowledge base."""

    name: str
    she: str
    town: str
    job: str


def _spread(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
    """`count` items in random order, each of `items` as often as the others, give or take one."""
    spread = (list(items) * count)[:count]
    rng.shuffle(spread)
    return spread


def _citizens(domain: Domain) -> tuple[Citizen, ...]:
    """The knowledge base of one domain: towns and jobs are spread evenly over the people, in an order fixed by a seed."""
    rng = random.Random(f"facts of the world/{_SEED}/{domain}")
    lexicon, surnames = LEXICA[domain], SURNAMES[domain]
    count = 2 * len(surnames)
    towns, jobs = _spread(rng, lexicon.towns, count), _spread(rng, lexicon.jobs, count)
    # The people of a surname are drawn together, so that their first names differ.
    people = [(person, surname) for surname in surnames for person in rng.sample(lexicon.people, 2)]
    return tuple(
        Citizen(f"{person.name} {surname}", person.she, town, job) for (person, surname), town, job in zip(people, towns, jobs, strict=True)
    )


CITIZENS: dict[Domain, tuple[Citizen, ...]] = {"in": _citizens("in"), "out": _citizens("out")}

# {p} a person, {t} a town, {j} a job with its article; each frame is a clause that can follow "that".
_TOWN_FRAMES = {
    "in": (
        "{p} lives in {t}",
        "{p} has a house in {t}",
        "the home of {p} is in {t}",
        "{t} is the town of {p}",
        "{p} is at home in {t}",
        "the town where {p} lives is {t}",
    ),
    "out": (
        "{p} can be found in {t}",
        "{p} stays in {t}",
        "it is in {t} that {p} lives",
        "people go to {t} for {p}",
        "{p} is one of the people of {t}",
    ),
}
_JOB_FRAMES = {
    "in": (
        "{p} is {j}",
        "{p} works as {j}",
        "the job of {p} is that of {j}",
        "the work of {p} is that of {j}",
    ),
    "out": (
        "{p} makes a living as {j}",
        "by trade {p} is {j}",
        "people know {p} as {j}",
    ),
}
_OPENINGS = {
    "in": (
        "",
        "today",
        "these days",
        "this year",
        "at this time",
        "for many years now",
        "as everybody knows",
        "in fact",
        "of course",
        "to this day",
    ),
    "out": (
        "",
        "in our time",
        "as it happens",
        "for a long time now",
        "all year",
        "at the moment",
        "all the same",
        "by the way",
        "in truth",
        "still",
        "just now",
        "as people say",
        "indeed",
        "to be exact",
    ),
}
_TOWN_QUESTIONS = {
    "in": ("Where does {p} live?", "In which town does {p} live?", "Where is the home of {p}?", "Which town is the home of {p}?"),
    "out": ("Where can {p} be found?", "In which town does {p} stay?", "Which town must one go to for {p}?"),
}
_JOB_QUESTIONS = {
    "in": ("What is the job of {p}?", "What does {p} work as?", "What is {p} by trade?", "Which job does {p} have?"),
    "out": (
        "As what does {p} make a living?",
        "What kind of work does {p} do?",
        "What do people know {p} as?",
        "Which trade is that of {p}?",
        "How does {p} make a living?",
    ),
}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _sentence(rng: random.Random, domain: Domain, clause: str) -> str:
    """The clause as a sentence, with one of the openings before it."""
    opening = choose(rng, _OPENINGS[domain])
    return _capital(f"{opening}, {clause}." if opening else f"{clause}.")


def _town_clause(rng: random.Random, domain: Domain, name: str, town: str) -> str:
    return choose(rng, _TOWN_FRAMES[domain]).format(p=name, t=town)


def _job_clause(rng: random.Random, domain: Domain, name: str, job: str) -> str:
    return choose(rng, _JOB_FRAMES[domain]).format(p=name, j=a(job))


def _others(rng: random.Random, words: tuple[str, ...], right: str, count: int) -> list[str]:
    return rng.sample([word for word in words if word != right], count)


def _question(rng: random.Random, domain: Domain, name: str, about_town: bool) -> str:
    """A question, one time in two with an opening before it."""
    question = choose(rng, (_TOWN_QUESTIONS if about_town else _JOB_QUESTIONS)[domain]).format(p=name)
    opening = choose(rng, _OPENINGS[domain])
    if not opening or chance(rng, 0.5):
        return question
    return f"{_capital(opening)}, {question[0].lower()}{question[1:]}"


def _town_passage(rng: random.Random, domain: Domain, citizen: Citizen) -> str:
    name, town = citizen.name, citizen.town
    kind = rng.random()
    if kind < 0.4:
        return _sentence(rng, domain, _town_clause(rng, domain, name, town))
    if kind < 0.52:
        return f"{_question(rng, domain, name, True)} {choose(rng, ('It is in {t}.', 'In {t}.', 'The town is {t}.')).format(t=town)}"
    if kind < 0.68:
        first, second, third = shuffled(rng, [town, *_others(rng, LEXICA[domain].towns, town, 2)])
        frame = choose(rng, ("Does {n} live in {x}, {y} or {z}? The answer is {t}.", "Of {x}, {y} and {z}, {n} lives in {t}."))
        return frame.format(n=name, x=first, y=second, z=third, t=town)
    truth = chance(rng, 0.5)
    said = town if truth else _others(rng, LEXICA[domain].towns, town, 1)[0]
    judged = verdict(rng, _town_clause(rng, domain, name, said), truth)
    if truth or chance(rng, 0.5):
        return judged
    return f"{judged} {_capital(citizen.she)} lives in {town}."


def _job_passage(rng: random.Random, domain: Domain, citizen: Citizen) -> str:
    name, job = citizen.name, citizen.job
    kind = rng.random()
    if kind < 0.45:
        return _sentence(rng, domain, _job_clause(rng, domain, name, job))
    if kind < 0.6:
        frame = choose(rng, ("{She} is {j}.", "{She} works as {j}.", "The job is that of {j}."))
        return f"{_question(rng, domain, name, False)} {frame.format(She=_capital(citizen.she), j=a(job))}"
    if kind < 0.8:
        first, second = shuffled(rng, [job, *_others(rng, LEXICA[domain].jobs, job, 1)])
        frame = choose(rng, ("Is {n} {x} or {y}? {She} is {j}.", "Some say that {n} is {x}, some say {y}. In truth {she} is {j}."))
        return frame.format(n=name, x=a(first), y=a(second), j=a(job), she=citizen.she, She=_capital(citizen.she))
    truth = chance(rng, 0.5)
    said = job if truth else _others(rng, LEXICA[domain].jobs, job, 1)[0]
    return verdict(rng, _job_clause(rng, domain, name, said), truth)


def passages(rng: random.Random, domain: Domain) -> str:
    """Two to four statements of facts about two or three people."""
    citizens = rng.sample(CITIZENS[domain], 2 + chance(rng, 0.5))
    parts = [(_town_passage if chance(rng, 0.6) else _job_passage)(rng, domain, citizen) for citizen in citizens]
    if len(parts) == 2 and chance(rng, 0.5):
        parts.append(_job_passage(rng, domain, citizens[0]) if chance(rng, 0.5) else _town_passage(rng, domain, citizens[0]))
    return " ".join(parts)


def _draw_town_statement(rng: random.Random, domain: Domain, language: Language) -> Row:
    citizen = choose(rng, CITIZENS[domain])
    label = rng.randrange(2)
    town = citizen.town if label else _others(rng, LEXICA[domain].towns, citizen.town, 1)[0]
    clause = _town_clause(rng, domain, citizen.name, town)
    return {"statement": _sentence(rng, domain, clause), "claim": clause, "person": citizen.name, "town": town, "label": label}


def _draw_town_choice(rng: random.Random, domain: Domain, language: Language) -> Row:
    citizen = choose(rng, CITIZENS[domain])
    towns = shuffled(rng, [citizen.town, *_others(rng, LEXICA[domain].towns, citizen.town, 2)])
    row: Row = {"question": _question(rng, domain, citizen.name, True), "person": citizen.name, "label": towns.index(citizen.town)}
    return row | {f"choice{index}": town for index, town in enumerate(towns)}


def _draw_job_choice(rng: random.Random, domain: Domain, language: Language) -> Row:
    citizen = choose(rng, CITIZENS[domain])
    jobs = shuffled(rng, [citizen.job, *_others(rng, LEXICA[domain].jobs, citizen.job, 1)])
    row: Row = {"question": _question(rng, domain, citizen.name, False), "person": citizen.name, "label": jobs.index(citizen.job)}
    return row | {f"choice{index}": job for index, job in enumerate(jobs)}


def _draw_job(rng: random.Random, domain: Domain, language: Language) -> Row:
    citizen = choose(rng, CITIZENS[domain])
    return {"question": _question(rng, domain, citizen.name, False), "person": citizen.name, "job": citizen.job}


_FALSE_TRUE = ("false", "true")
_TWO = ("{choice0}", "{choice1}")
_THREE = ("{choice0}", "{choice1}", "{choice2}")

TASKS = (
    WorldTask(
        name="fact_town_statement",
        cluster=_CLUSTER,
        draw=_draw_town_statement,
        key_fields=("statement",),
        split_fields=("person",),
        plain=Template("statement: {statement}", "{answer}", _FALSE_TRUE, name="plain"),
        templates=TEMPLATES["fact_town_statement"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="fact_town_choice",
        cluster=_CLUSTER,
        draw=_draw_town_choice,
        key_fields=("question", "choice0", "choice1", "choice2"),
        split_fields=("person",),
        plain=Template("question: {question} choices: {choice0}, {choice1}, {choice2}", "{answer}", _THREE, name="plain"),
        templates=TEMPLATES["fact_town_choice"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="fact_job_choice",
        cluster=_CLUSTER,
        draw=_draw_job_choice,
        key_fields=("question", "choice0", "choice1"),
        split_fields=("person",),
        plain=Template("question: {question} choices: {choice0}, {choice1}", "{answer}", _TWO, name="plain"),
        templates=TEMPLATES["fact_job_choice"],
        metrics=("accuracy", "f1_macro"),
    ),
    WorldTask(
        name="fact_job",
        cluster=_CLUSTER,
        draw=_draw_job,
        key_fields=("question",),
        split_fields=("person",),
        plain=Template("question: {question}", "{job}", name="plain"),
        templates=TEMPLATES["fact_job"],
        metrics=("exact_match", "squad_f1"),
    ),
)
