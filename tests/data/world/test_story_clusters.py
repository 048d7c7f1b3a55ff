"""Comprehension, facts, extraction and summarising: contract, balance, bag-of-words ceiling, and labels derived a second time."""

import collections
import itertools
import random
import re

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from prompt_tuning.data.templates import field_names
from prompt_tuning.data.world.clusters import comprehension, extraction, facts, summarising
from prompt_tuning.data.world.story_lexicon import LEXICA, SURNAMES
from prompt_tuning.data.world.task import Domain, Row, Split, WorldTask, rows, split_of

MODULES = (comprehension, facts, extraction, summarising)
TASKS = tuple(task for module in MODULES for task in module.TASKS)
CLASSIFICATION = tuple(task for task in TASKS if task.is_classification)
DOMAINS: tuple[Domain, ...] = ("in", "out")


def by_name(task: WorldTask) -> str:
    return task.name


def some(task: WorldTask, count: int, *, split: Split = "train", domain: Domain = "in", seed: int = 0) -> list[Row]:
    return list(itertools.islice(rows(task, split, seed=seed, domain=domain), count))


def all_tasks(function):
    return pytest.mark.parametrize("task", TASKS, ids=by_name)(function)


@all_tasks
def test_rows_are_the_same_for_the_same_seed_and_differ_between_seeds(task):
    assert some(task, 50) == some(task, 50)
    assert some(task, 50) != some(task, 50, seed=1)


@all_tasks
def test_rows_are_many_enough_and_their_splits_share_no_key(task):
    wanted = 600 if task.cluster == "facts" else 3000
    assert len(some(task, wanted)) == wanted
    for domain in DOMAINS:
        keys = {}
        for split in ("train", "validation", "test"):
            drawn = some(task, 200, split=split, domain=domain)
            assert len(drawn) == 200, (split, domain)
            keys[split] = {tuple(row[field] for field in task.key_fields) for row in drawn}
            assert len(keys[split]) == 200
        assert not keys["train"] & keys["validation"] | keys["train"] & keys["test"] | keys["validation"] & keys["test"]


def test_no_person_of_the_facts_is_in_two_splits():
    for task in facts.TASKS:
        for domain in DOMAINS:
            people = collections.Counter(split_of(task, {"person": citizen.name}) for citizen in facts.CITIZENS[domain])
            assert min(people["validation"], people["test"]) >= 3, (task.name, domain, people)
            test_people = {row["person"] for row in some(task, 100, split="test", domain=domain)}
            assert not test_people & {row["person"] for row in some(task, 100, domain=domain)}


@all_tasks
def test_ten_templates_two_turned_around_all_render(task):
    assert len(task.templates) == 10
    assert len({template.name for template in task.templates}) == 10
    assert len({template.inputs for template in task.templates}) == 10
    assert 2 <= sum(template.turned_around for template in task.templates) <= 3
    assert any("options" in field_names(template.inputs) for template in task.templates) == task.is_classification
    for domain in DOMAINS:
        for row in some(task, 40, domain=domain):
            for template in (task.plain, *task.templates):
                rendered = template.render(row)
                assert len(rendered.inputs.split()) <= 100
                assert 0 < len(rendered.targets.split()) < (40 if template.turned_around else 25)
                if task.is_classification and not template.turned_around:
                    assert rendered.answer_choices is not None
                    assert len(set(rendered.answer_choices)) == len(task.plain.answer_choices)


@pytest.mark.parametrize("task", CLASSIFICATION, ids=by_name)
def test_labels_are_balanced(task):
    classes = len(task.plain.answer_choices)
    for domain in DOMAINS:
        labels = collections.Counter(row["label"] for row in some(task, 600, domain=domain))
        for label in range(classes):
            assert abs(labels[label] / 600 - 1 / classes) < 0.08, (domain, labels)


@pytest.mark.parametrize("task", CLASSIFICATION, ids=by_name)
def test_a_bag_of_words_does_not_solve_the_task(task):
    train, test = some(task, 1000), some(task, 500, split="test")
    vectorizer = CountVectorizer()
    counts = vectorizer.fit_transform(task.plain.render(row).inputs for row in train)
    model = LogisticRegression(max_iter=1000).fit(counts, [row["label"] for row in train])
    accuracy = model.score(vectorizer.transform(task.plain.render(row).inputs for row in test), [row["label"] for row in test])
    assert accuracy < (0.65 if len(task.plain.answer_choices) == 2 else 0.56), accuracy


def content_words(domain: Domain) -> set[str]:
    lexicon = LEXICA[domain]
    kinds = [word for kind in lexicon.kinds for word in kind]
    names = [person.name for person in lexicon.people]
    return {
        *lexicon.things, *lexicon.places, *lexicon.shops, *lexicon.colours, *lexicon.days, *lexicon.towns, *lexicon.jobs,
        *lexicon.vehicles, *kinds, *names, *SURNAMES[domain],
    }  # fmt: skip


def test_the_words_of_the_two_domains_do_not_meet():
    assert not content_words("in") & content_words("out")


@all_tasks
def test_out_of_domain_rows_use_other_words_and_frames(task):
    ours, theirs = content_words("in"), content_words("out")
    frames: dict[Domain, set[str]] = {"in": set(), "out": set()}
    for domain in DOMAINS:
        for row in some(task, 300, domain=domain):
            text = row[task.key_fields[0]]
            words = re.findall(r"\w+", text)
            assert not set(words) & (theirs if domain == "in" else ours), text
            frames[domain].add(re.sub(r"\w+", lambda match: "_" if match[0] in ours | theirs else match[0], text))
    shared = frames["in"] & frames["out"]
    assert len(shared) <= 0.02 * len(frames["out"]) + 2, shared


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_passages_are_seeded_short_and_hold_both_lexica(module):
    for domain in DOMAINS:
        passages = [module.passages(random.Random(seed), domain) for seed in range(400)]
        assert passages == [module.passages(random.Random(seed), domain) for seed in range(400)]
        assert len(set(passages)) > 390
        lengths = [len(passage.split()) for passage in passages]
        assert min(lengths) >= 8 and max(lengths) <= 80 and 20 <= sum(lengths) / 400 <= 50
        words = set(re.findall(r"\w+", " ".join(passages)))
        assert not words & content_words("out" if domain == "in" else "in")
        for passage in passages:
            assert passage[0].isupper() and passage[-1] in ".!?" and "  " not in passage and "{" not in passage


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rsplit(".", 1)[-1])
def test_passages_hold_no_wording_of_a_template(module):
    rng = random.Random(7)
    text = "\n".join(module.passages(rng, domain) for _ in range(800) for domain in DOMAINS).lower()
    for task in module.TASKS:
        for template in (task.plain, *task.templates):
            for literal in re.split(r"\{\w+\}", template.inputs):
                words = literal.lower().split()
                for start in range(len(words) - 5):
                    assert " ".join(words[start : start + 6]) not in text
        for row in some(task, 300, split="test"):
            assert task.plain.render(row).inputs.lower() not in text


# The world of the stories, played again from their text: who or what is where after each sentence.
_PUT = (
    r"(?P<who>\w+) (put|left|kept|had laid) the (?P<x>\w+) (down )?in the (?P<p>\w+)\.",
    r"The (?P<x>\w+) of \w+ was in the (?P<p>\w+)\.",
    r"In the (?P<p>\w+) \w+ had a (?P<x>\w+)\.",
    r"There was a (?P<x>\w+) in the (?P<p>\w+), and \w+ knew it\.",
    r"(Then |Later |After that )?\w+ (moved|took|carried|brought) the (?P<x>\w+) to the (?P<p>\w+)\.",
    r"The (?P<x>\w+) was moved to the (?P<p>\w+) by \w+\.",
    r"Next, \w+ went to the (?P<p>\w+) with the (?P<x>\w+)\.",
    r"It was \w+ who took the (?P<x>\w+) into the (?P<p>\w+)\.",
    r"(?P<p>\w+) (had|found|bought|owned) (the|a) (?P<x>\w+)\.",
    r"The (?P<x>\w+) was with (?P<p>\w+)\.",
    r"At first the (?P<x>\w+) was in the hands of (?P<p>\w+)\.",
    r"It was (?P<p>\w+) who held the (?P<x>\w+)\.",
    r"\w+ (gave|handed) the (?P<x>\w+) to (?P<p>\w+)\.",
    r"(?P<p>\w+) (got|took) the (?P<x>\w+) from \w+\.",
    r"(Then )?\w+ (gave|passed) (?P<p>\w+) the (?P<x>\w+)\.",
    r"The (?P<x>\w+) was given to (?P<p>\w+) by \w+\.",
    r"Next, the (?P<x>\w+) went from \w+ to (?P<p>\w+)\.",
)


def played(story: str) -> dict[str, str]:
    """Each thing of the story with its last place or holder."""
    state = {}
    for sentence in re.findall(r"[^.]+\.", story):
        for pattern in _PUT:
            if found := re.fullmatch(pattern, sentence.strip()):
                state[found["x"]] = found["p"]
                break
    return state


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("task", comprehension.TASKS, ids=by_name)
def test_playing_the_story_gives_the_answer(task, domain):
    for row in some(task, 400, domain=domain):
        state = played(row["story"])
        assert len(state) in (1, 2), row["story"]
        if task.name == "story_yes_no":
            where = re.fullmatch(r"the (\w+) is in the (\w+)|(\w+) has the (\w+)", row["claim"])
            thing, place = (where[1], where[2]) if where[1] else (where[4], where[3])
            assert row["label"] == (state[thing] == place), row
        else:
            thing = next(word for word in re.findall(r"\w+", row["question"]) if word in state)
            answer = row["reply"] if task.name == "story_answer" else row[f"choice{row['label']}"]
            assert answer == state[thing], row


def test_facts_agree_with_the_knowledge_base():
    town = {citizen.name: citizen.town for domain in DOMAINS for citizen in facts.CITIZENS[domain]}
    job = {citizen.name: citizen.job for domain in DOMAINS for citizen in facts.CITIZENS[domain]}
    assert len(town) + len(job) <= 300
    assert len(town) == sum(len(facts.CITIZENS[domain]) for domain in DOMAINS)
    statement, town_choice, job_choice, job_open = facts.TASKS
    for domain in DOMAINS:
        for row in some(statement, 300, domain=domain):
            named = next(word for word in LEXICA[domain].towns if re.search(rf"\b{word}\b", row["statement"]))
            assert row["label"] == (named == town[row["person"]])
        assert all(row[f"choice{row['label']}"] == town[row["person"]] for row in some(town_choice, 300, domain=domain))
        assert all(row[f"choice{row['label']}"] == job[row["person"]] for row in some(job_choice, 300, domain=domain))
        assert all(row["job"] == job[row["person"]] for row in some(job_open, 150, domain=domain))


def test_every_fact_is_told_often_enough_to_be_learned():
    rng = random.Random(0)
    text = [facts.passages(rng, "in") for _ in range(10_000)]
    told = collections.Counter(citizen.name for passage in text for citizen in facts.CITIZENS["in"] if citizen.name in passage)
    assert min(told[citizen.name] for citizen in facts.CITIZENS["in"]) > 250


@pytest.mark.parametrize("domain", DOMAINS)
def test_extraction_labels_follow_from_the_sentence(domain):
    role, first_kind, claim, colour, detail = extraction.TASKS
    lexicon = LEXICA[domain]
    receives = re.compile(r"(\w+) (got|took|bought|was given|was handed)\b|(?:to|for|sent|gave) ([A-Z]\w+)")
    for row in some(role, 300, domain=domain):
        found = receives.search(row["sentence"])
        assert (row["label"] == 1) == (row["person"] == (found[1] or found[3])), row
    kind_of = {word: kind for kind, words in enumerate(lexicon.kinds) for word in words}
    for row in some(first_kind, 300, domain=domain):
        assert row["label"] == next(kind_of[word] for word in re.findall(r"\w+", row["sentence"]) if word in kind_of)

    def colour_of(sentence: str, thing: str) -> str:
        words = re.findall(r"\w+", sentence)
        at = words.index(thing)
        if words[at - 1] in lexicon.colours:
            return words[at - 1]
        return next(word for word in words[at:] if word in lexicon.colours)

    for row in some(colour, 300, domain=domain):
        assert row["colour"] == colour_of(row["sentence"], row["thing"]), row
    for row in some(claim, 300, domain=domain):
        _, thing, _, said = row["claim"].split()
        assert row["label"] == (said == colour_of(row["sentence"], thing)), row
    pools = {"person": [person.name for person in lexicon.people], "day": lexicon.days, "place": lexicon.shops, "thing": lexicon.things}
    for row in some(detail, 300, domain=domain):
        assert [word for word in re.findall(r"\w+", row["sentence"]) if word in pools[row["wanted"]]] == [row["value"]]


@pytest.mark.parametrize("domain", DOMAINS)
def test_summaries_and_near_misses_use_words_of_the_story(domain):
    summary, title, check = summarising.TASKS
    right = {row["story"]: row["summary"] for row in some(summary, 3000, domain=domain)}
    words = content_words(domain)
    for row in (*some(check, 300, domain=domain), *some(summary, 300, domain=domain)):
        named = {word for word in re.findall(r"\w+", row["summary"]) if word in words}
        assert named <= set(re.findall(r"\w+", row["story"])), row
        if "label" in row and row["story"] in right:
            assert row["label"] == (row["summary"] == right[row["story"]])
    for row in some(title, 300, domain=domain):
        assert row["choice0"] != row["choice1"]
        assert row["wrong_title"] == row[f"choice{1 - row['label']}"]
