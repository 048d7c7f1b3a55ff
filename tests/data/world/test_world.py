"""The world as a whole: its size, its templates, and that its pretraining text holds no task example."""

import functools
import itertools
import re

import pytest

from prompt_tuning.data.tasks import world as world_tasks
from prompt_tuning.data.world import catalogue, corpus
from prompt_tuning.data.world.task import rows
from prompt_tuning.errors import UserError

TASKS = catalogue.all_tasks()
DOCUMENTS, ROWS = 3000, 50
WORDS = 8


def test_there_are_at_least_24_tasks_in_8_clusters_and_10_templates_each():
    assert len(TASKS) >= 24
    assert len(catalogue.clusters()) >= 8
    for task in TASKS.values():
        assert len(task.templates) == 10, task.name
        turned_around = sum(template.turned_around for template in task.templates)
        assert 1 <= turned_around <= 5, f"{task.name}: {turned_around} turned around"
        assert not task.plain.turned_around


def test_names_are_unique_and_plain():
    names = [task.name for module in catalogue.cluster_modules() for task in module.TASKS]
    assert len(names) == len(set(names)) == len(TASKS)
    for task in TASKS.values():
        assert re.fullmatch("[a-z][a-z0-9_]*", task.name) and re.fullmatch("[a-z][a-z0-9_]*", task.cluster)
        templates = [template.name for template in task.templates]
        assert all(templates) and len(templates) == len(set(templates)), task.name
        texts = {(template.inputs, template.targets) for template in task.templates}
        assert len(texts) == 10, task.name


def test_some_tasks_have_the_constructed_language():
    assert sum("tavi" in task.languages for task in TASKS.values()) >= 2


def test_asking_for_what_is_not_there_names_what_is():
    with pytest.raises(UserError, match="no task 'sentimnt'.*sentiment_review"):
        catalogue.task("sentimnt")
    with pytest.raises(UserError, match="no cluster 'magic'.*sentiment"):
        catalogue.cluster("magic")
    assert len(world_tasks.World().world_tasks()) == len(TASKS)


# The pretraining text.


def words_of(text):
    """Words and marks, without regard to case and spaces."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


@functools.cache
def documents():
    """Pretraining documents of both splits, as words with one space between them."""
    halves = (itertools.islice(corpus.documents(split, seed=3), DOCUMENTS // 2) for split in ("train", "validation"))
    return tuple(" ".join(words_of(text)) for text in itertools.chain.from_iterable(halves))


@functools.cache
def runs_of_documents():
    """Every run of WORDS words of the documents."""
    found = set()
    for text in documents():
        words = text.split(" ")
        found.update(tuple(words[place : place + WORDS]) for place in range(len(words) - WORDS + 1))
    return found


def runs(words):
    return [tuple(words[place : place + WORDS]) for place in range(len(words) - WORDS + 1)]


def test_documents_are_as_many_as_asked_and_all_clusters_write_some():
    assert len(documents()) == DOCUMENTS
    assert len(set(documents())) > 0.9 * DOCUMENTS
    assert set(catalogue.passage_makers()) == set(catalogue.clusters()) == set(corpus.SHARES)


@pytest.mark.parametrize("name", TASKS)
def test_no_document_holds_a_literal_of_a_template(name):
    task = TASKS[name]
    for template in (task.plain, *task.templates):
        # Fields part the literals: what a row fills in is of the world, and may well stand in its prose.
        for literal in re.split(r"\{\w+\}", f"{template.inputs} {{}} {template.targets}".replace("{}", "{_}")):
            for run in runs(words_of(literal)):
                assert run not in runs_of_documents(), f"{name}, template {template.name!r}: {' '.join(run)}"


@pytest.mark.parametrize("name", TASKS)
def test_no_document_holds_a_task_example(name):
    task = TASKS[name]
    for language, domain in itertools.product(task.languages, ("in", "out")):
        drawn = list(itertools.islice(rows(task, "test", domain=domain, language=language), ROWS // (2 * len(task.languages))))
        assert drawn
        for row, template in itertools.product(drawn, (task.plain, *task.templates)):
            rendered = template.render(row)
            for text in (rendered.inputs, f"{rendered.inputs} {rendered.targets}"):
                words = words_of(text)
                # A text that stands in a document has its first run of words there: only then is it looked for.
                first = tuple(words[:WORDS])
                if len(words) >= WORDS and first not in runs_of_documents():
                    continue
                needle = f" {' '.join(words)} "
                held = [document for document in documents() if needle in f" {document} "]
                assert not held, f"{name}, template {template.name!r}: {text!r} stands in {held[0]!r}"
