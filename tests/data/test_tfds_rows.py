"""Rows of a data set that is really stored by TFDS, as plain values and told by templates; nothing is fetched."""

import collections
import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from prompt_tuning.data import mixtures, tfds_rows
from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError
from tests.data.small import BYTES

ROWS = [
    {"premise": f"Ånn has {i} hens.", "hypothesis": "Ånn has hens.", "label": i % 2, "notes": {"text": ["a", f"{i}"], "place": [0, i]}}
    for i in range(40)
]


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A TFDS folder that holds one data set."""
    data_dir = tmp_path_factory.mktemp("tfds")
    features = {
        "premise": tfds.features.Text(),
        "hypothesis": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["entailment", "not_entailment"]),
        "notes": tfds.features.Sequence({"text": tfds.features.Text(), "place": np.int32}),
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": list(enumerate(ROWS[:30])), "validation": list(enumerate(ROWS[30:]))},
        data_dir=data_dir,
    )
    return str(data_dir)


def test_rows_are_plain_values_in_a_stable_order(folder):
    found = dict(tfds_rows.rows(tfds_rows.split_path("tiny:1.0.0", "train"), folder))
    assert sorted(found.values(), key=lambda row: row["notes"]["place"]) == ROWS[:30]
    assert list(found)[:2] == ["tfds:tiny:1.0.0#train row 0", "tfds:tiny:1.0.0#train row 1"]
    assert list(found.values())[:7] == [row for _, row in tfds_rows.rows("tfds:tiny:1.0.0#train[:7]", folder)]


def test_they_are_told_as_rows_of_files_are(folder):
    source = Instructions(
        "tiny",
        Templated("rte", data_dir=folder),
        train_files="tfds:tiny:1.0.0#train[:20]",
        validation_files=("tfds:tiny:1.0.0#train[-5:]", "tfds:tiny:1.0.0#validation"),
        options="suffix",
        exemplars=2,
    )
    (task,) = source.tasks(BYTES.load())
    assert len(mixtures.evaluation_examples(task, "train")) == 20
    examples = mixtures.evaluation_examples(task, "validation")
    assert len(examples) == 15
    for example in examples:
        *exemplars, asked = example["inputs_pretokenized"].split("\n\n")
        assert len(exemplars) == 2 and example["targets_pretokenized"] in example["answer_choices"]
        assert asked.count("OPTIONS:") == 1 and all(f"- {choice}" in asked for choice in example["answer_choices"])
    assert task is source.tasks(BYTES.load())[0]
    assert task is not dataclasses.replace(source, train_files="tfds:tiny:1.0.0#train[:19]").tasks(BYTES.load())[0]


def test_templates_are_capped_each(folder, monkeypatch):
    from prompt_tuning.data.tasks import instructions

    source = Instructions("tiny", Templated("rte", data_dir=folder), train_files="tfds:tiny:1.0.0#train")
    kept = {}
    for most in (None, 2):
        settings = dataclasses.replace(source, max_per_template=most)
        kept[most] = instructions._examples(settings, BYTES.load(), "tiny", {"train": source.train_files}, "train")
    counts = collections.Counter(record.template for record in kept[None])
    assert max(counts.values()) > 2 and "" not in counts
    assert collections.Counter(record.template for record in kept[2]) == {name: min(count, 2) for name, count in counts.items()}
    assert kept[2] == [record for record in kept[None] if record in kept[2]]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tfds:tiny:1.0.0", r"tfds:tiny:1.0.0: wanted tfds:NAME#SPLIT"),
        ("tfds:tiny:1.0.0#dev", r"tfds:tiny:1.0.0#dev: cannot be read from .* or fetched: .*dev"),
        ("tfds:tinny:1.0.0#train", r"tfds:tinny:1.0.0#train: cannot be read from .* or fetched: .*tinny"),
    ],
)
def test_what_is_not_there_is_named(folder, path, message):
    with pytest.raises(UserError, match=message):
        list(tfds_rows.rows(path, folder))
