"""What the world's rows say of their task, and the solved examples before them."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import vocabularies
from prompt_tuning.data.tasks import world
from prompt_tuning.data.tasks.world import World
from prompt_tuning.data.world import catalogue, definitions
from prompt_tuning.data.world.task import split_of
from prompt_tuning.errors import UserError
from tests.data.tasks.test_world import PARITY

SPLITS = ("train", "validation", "test")
FORMS = ("none", "plain", "name", "definition", "instructions")
worlds = st.builds(
    World,
    form=st.sampled_from(FORMS),
    exemplars=st.integers(0, 3),
    few_shot_frac=st.sampled_from((0.0, 0.3, 1.0)),
    options=st.sampled_from(("as_is", "listed", "lettered")),
    num_train=st.integers(1, 12),
    num_validation=st.just(5),
    num_test=st.just(5),
    seed=st.integers(0, 5),
)


@pytest.fixture(autouse=True)
def parity_has_a_definition(monkeypatch):
    monkeypatch.setitem(definitions._DEFINITIONS, "parity", "Say whether the number is even or odd.")


def numbers(text: str) -> list[str]:
    """The rows of the parity task that a text is about, in its order."""
    return re.findall(r"in \d+", text)


@given(worlds)
@settings(max_examples=60, deadline=None)
def test_exemplars_are_other_rows_of_the_training_split(given_world):
    training = {row["number"] for row in world._drawn_rows(PARITY, given_world, "train")}
    for split in SPLITS:
        for row, told in zip(world._drawn_rows(PARITY, given_world, split), world.text_rows(PARITY, given_world, split), strict=True):
            *shown, own = numbers(f"{told.inputs}\n{told.targets}")
            assert own == row["number"] and own not in shown
            assert set(shown) <= training and len(set(shown)) == len(shown)
            assert all(split_of(PARITY, {"number": number}) == "train" for number in shown)
            there = min(given_world.exemplars, len(training - {own}))
            if "Name an" in told.inputs:  # Turned around, several rows have one input, which is shown once.
                assert len(shown) <= there
            else:
                assert len(shown) in ((there,) if split != "train" or given_world.few_shot_frac == 1 else (0, there))


@given(worlds, st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_what_a_row_is_told_as_does_not_hang_on_the_other_rows(given_world, count):
    alone = dataclasses.replace(given_world, exemplars=0)
    fewer = dataclasses.replace(alone, num_train=min(count, alone.num_train))
    assert world.text_rows(PARITY, alone, "train")[: fewer.num_train] == world.text_rows(PARITY, fewer, "train")


@given(worlds)
@settings(max_examples=40, deadline=None)
def test_the_letter_is_that_of_the_right_choice(given_world):
    lettered = dataclasses.replace(given_world, options="lettered", exemplars=0)
    plain = dataclasses.replace(lettered, options="as_is")
    for row, unlettered in zip(world.text_rows(PARITY, lettered, "test"), world.text_rows(PARITY, plain, "test"), strict=True):
        assert row.targets in row.answer_choices
        (line,) = [line for line in row.inputs.splitlines() if re.match(rf"\W*{row.targets.strip('()')}\W", line)]
        assert line.endswith(f" {unlettered.targets}")


def few_shot(frac: float) -> set[str]:
    told = world.text_rows(PARITY, World(exemplars=1, few_shot_frac=frac, num_train=600), "train")
    return {shown[-1] for row in told if len(shown := numbers(row.inputs)) == 2}


def test_a_share_of_the_training_rows_has_exemplars_and_more_include_fewer():
    some, more = few_shot(0.3), few_shot(0.7)
    assert some < more
    # Four standard deviations of the share among 600 rows.
    assert abs(len(some) / 600 - 0.3) < 0.075 and abs(len(more) / 600 - 0.7) < 0.075


def test_training_draws_among_the_first_templates_and_evaluation_among_all():
    few = World(form="instructions", num_templates=2, num_train=60, num_test=60)
    assert {row.inputs[0] for row in world.text_rows(PARITY, few, "train")} == {"0", "1"}
    everywhere = dataclasses.replace(few, num_templates=None)
    assert world.text_rows(PARITY, few, "test") == world.text_rows(PARITY, everywhere, "test")
    with pytest.raises(UserError, match="parity has 4, got 5"):
        world.text_rows(PARITY, dataclasses.replace(few, num_templates=5), "train")


def test_no_input_is_longer_than_asked_for():
    many = World(form="definition", exemplars=5, num_train=30)
    most = 200
    cut = world.text_rows(PARITY, dataclasses.replace(many, input_tokens=most), "test", count_tokens=len)
    whole = world.text_rows(PARITY, many, "test")
    assert max(len(row.inputs) for row in cut) <= most < min(len(row.inputs) for row in whole)
    assert {len(numbers(row.inputs)) for row in cut} - {1, 6}


def test_what_each_form_says_of_the_task():
    def first(form: str, **how) -> str:
        return world.text_rows(PARITY, World(form=form, num_train=5, **how), "train")[0].inputs

    number = first("none")
    assert re.fullmatch(r"in \d+", number)
    assert first("plain") == f"number: {number}"
    assert first("name") == f"[numbers: parity] number: {number}"
    assert first("definition") == f"Definition: {definitions.of('parity')}\n\nInput: number: {number}\nOutput:"
    shown = first("definition", exemplars=1)
    assert shown.count("Definition:") == 1 and shown.count("Input:") == shown.count("Output:") == 2


def test_every_task_has_a_definition_in_the_words_of_the_vocabulary():
    vocabulary = vocabularies.SentencePiece("bundled:world.model").load()
    for name in catalogue.all_tasks():
        ids = vocabulary.encode(definitions.of(name))
        assert vocabulary.unk_id not in ids and vocabulary.decode(ids) == definitions.of(name)
    assert set(definitions._DEFINITIONS) - {"parity"} == set(catalogue.all_tasks())


def test_fewer_tasks_are_among_more_and_none_of_a_held_out_cluster():
    held_out = ("inference", "facts")
    names = [set(World(num_tasks=count, held_out=held_out, seed=3).task_names) for count in (2, 7, 20)]
    assert [len(each) for each in names] == [2, 7, 20] and names[0] < names[1] < names[2]
    rest = World(num_tasks=2, held_out=held_out, part="held_out").task_names
    assert rest == catalogue.clusters()["inference"] + catalogue.clusters()["facts"]
    assert not names[2] & set(rest)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"num_tasks": 99}, "num_tasks: wanted at most the"),
        ({"num_tasks": 0}, "num_tasks: wanted at least 1"),
        ({"num_templates": 0}, "num_templates: wanted at least 1"),
        ({"exemplars": -1}, "exemplars: wanted 0 or more"),
        ({"few_shot_frac": 1.5}, "few_shot_frac: wanted 0 to 1"),
        ({"options": "numbered"}, "options: wanted one of as_is, listed, lettered"),
        ({"part": "held_out"}, "part: 'held_out' wants clusters"),
    ],
)
def test_what_is_wrong_is_said(how, message):
    with pytest.raises(UserError, match=message):
        World(**how).world_tasks()


def test_every_template_that_asks_is_a_task_of_its_own_over_the_same_rows():
    told = World(task_list="sentiment_review", form="instructions", every_template=True, num_train=3, num_test=4)
    task = catalogue.task("sentiment_review")
    asking = [template.name for template in task.templates if not template.turned_around]
    assert told.task_names == tuple(f"sentiment_review/{name}" for name in asking)
    assert len(told.provenance) == len(asking) == len(told.tasks(vocabularies.Bytes().load()))
    read = [each.read("test") for each in told.tasks(vocabularies.Bytes().load())]
    for index, rows in enumerate(read):
        assert rows == world.text_rows(task, World(form="instructions", template=index, num_train=3, num_test=4), "test")
    assert len({rows[0].inputs for rows in read}) == len(asking)
    with pytest.raises(UserError, match="wanted form 'instructions'"):
        World(every_template=True)
