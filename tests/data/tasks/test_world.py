"""The task world as a source of examples."""

import random

import pytest

from prompt_tuning.data import mixtures
from prompt_tuning.data.tasks import world
from prompt_tuning.data.tasks.world import World
from prompt_tuning.data.templates import Template
from prompt_tuning.data.world import catalogue
from prompt_tuning.data.world.task import WorldTask
from prompt_tuning.errors import UserError
from tests.data.small import BYTES

SMALL = {"num_train": 40, "num_validation": 10, "num_test": 10}


def draw(rng: random.Random, domain: str, language: str) -> dict:
    number = rng.randrange(100_000)
    return {"number": f"{domain} {number}", "label": number % 2}


PARITY = WorldTask(
    name="parity",
    cluster="numbers",
    draw=draw,
    key_fields=("number",),
    plain=Template("number: {number}", answer_choices=("even", "odd"), name="plain"),
    templates=(
        *(Template(f"{i} Is {{number}} even?", answer_choices=("yes", "no"), name=f"ask{i}") for i in range(3)),
        Template("Name an {answer} number.", "{number}", answer_choices=("even", "odd"), turned_around=True, name="turned"),
    ),
    metrics=("accuracy",),
)


def test_rows_are_the_same_each_time_and_splits_are_apart():
    settings = World(**SMALL)
    splits = {split: world.text_rows(PARITY, settings, split) for split in ("train", "validation", "test")}
    assert {split: len(found) for split, found in splits.items()} == {"train": 40, "validation": 10, "test": 10}
    assert splits["train"] == world.text_rows(PARITY, settings, "train")
    texts = [row.inputs for found in splits.values() for row in found]
    assert len(set(texts)) == len(texts)


def test_templates_follow_content_not_order():
    def templates(num_train: int, seed: int) -> dict[str, str]:
        settings = World(form="instructions", num_train=num_train, seed=seed)
        rows = [row for row, _ in zip(world.rows(PARITY, "train", seed=7), range(num_train), strict=False)]
        return {row["number"]: world.choose_template(PARITY, row, settings, "train").name for row in rows}

    few, many = templates(20, 0), templates(200, 0)
    assert few.items() <= many.items()
    assert set(many.values()) == {"ask0", "ask1", "ask2", "turned"}
    assert templates(200, 1) != many


def test_turned_around_templates_are_for_training_only():
    settings = World(form="instructions", num_train=100, num_validation=60)
    assert any(row.inputs.startswith("Name an") for row in world.text_rows(PARITY, settings, "train"))
    validation = world.text_rows(PARITY, settings, "validation")
    assert all(row.answer_choices == ("yes", "no") for row in validation)


def test_one_template_can_be_asked_for():
    settings = World(form="instructions", template=1, **SMALL)
    assert all(row.inputs.startswith("1 Is") for row in world.text_rows(PARITY, settings, "train"))
    with pytest.raises(UserError, match="templates 0..3, got 4"):
        world.text_rows(PARITY, World(form="instructions", template=4, **SMALL), "train")


def test_every_task_of_the_world_is_offered():
    every = World().task_names
    assert list(every) == list(catalogue.all_tasks())
    assert len(every) >= 24
    assert len(catalogue.clusters()) >= 8


def test_held_out_clusters_are_left_out():
    held_out = next(iter(catalogue.clusters()))
    names = set(World(held_out=(held_out,)).task_names)
    assert names == set(catalogue.all_tasks()) - set(catalogue.clusters()[held_out])
    assert World(clusters=[held_out]).task_names == catalogue.clusters()[held_out]


def test_a_real_task_reads_through_seqio():
    name = next(name for name, task in catalogue.all_tasks().items() if task.is_classification)
    (task,) = World(task_list=name, **SMALL).tasks(BYTES.load())
    assert task.title == name
    assert task.metric_names == catalogue.task(name).metrics
    examples = mixtures.evaluation_examples(task, "validation")
    assert len(examples) == 10
    assert all(example["targets_pretokenized"] in example["answer_choices"] for example in examples)


def test_a_task_is_the_same_alone_and_among_others():
    names = list(catalogue.all_tasks())[:2]
    alone = World(task_list=names[:1], **SMALL).tasks(BYTES.load())
    both = World(task_list=names, **SMALL).tasks(BYTES.load())
    assert alone[0] is both[0]


def test_what_is_wrong_is_said():
    for settings, message in (
        ({"task_list": "sentimant"}, "no task 'sentimant'"),
        ({"clusters": "poetry"}, "no cluster 'poetry'"),
        ({"clusters": ("sentiment",), "held_out": ("sentiment",)}, "no task left"),
    ):
        with pytest.raises(UserError, match=message):
            World(**settings).world_tasks()
    for settings, message in (({"form": "song"}, "World.form"), ({"domain": "far"}, "World.domain"), ({"num_train": 0}, "World.num_train")):
        with pytest.raises(UserError, match=message):
            World(**settings)
    english = next(task for task in catalogue.all_tasks().values() if "tavi" not in task.languages)
    with pytest.raises(UserError, match="can't be drawn in tavi"):
        World(task_list=english.name, language="tavi").world_tasks()
