"""GLUE and SuperGLUE through the real TFDS builders on mock data, and their formats on rows written by hand; nothing is fetched."""

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from prompt_tuning.data import mixtures, tfds_tasks
from prompt_tuning.data.tasks import glue, superglue
from prompt_tuning.errors import UserError
from tests.data.small import BYTES

ALL = [*((glue.Glue, name) for name in glue.FORMATS), *((superglue.SuperGlue, name) for name in superglue.FORMATS)]


pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(scope="module")
def mocked():
    """TFDS builders that give four random rows a split."""
    with tfds.testing.mock_data(num_examples=4):
        yield


def rows(preprocess, row, split="validation", **settings):
    """What a preprocessor makes of one TFDS row, as text."""
    tensors = tf.nest.map_structure(tf.convert_to_tensor, row | {"split": split})
    made = preprocess(tf.data.Dataset.from_tensors(tensors), **settings)
    return [
        {key: value.decode() if isinstance(value, bytes) else [text.decode() for text in value] for key, value in found.items()}
        for found in made.as_numpy_iterator()
    ]


@pytest.mark.parametrize(("source", "name"), ALL, ids=[f"{source.__name__}-{name}" for source, name in ALL])
def test_real_builders(mocked, source, name):
    (task,) = source(name).tasks(BYTES.load())
    form = (glue if source is glue.Glue else superglue).FORMATS[name]
    examples = mixtures.evaluation_examples(task, "validation", 3)
    for example in examples:
        assert example["inputs_pretokenized"].startswith(name)
        places = [example["inputs_pretokenized"].find(f"{field}:") for field in form.fields]
        assert places == sorted(places)
        assert name == "wsc" or -1 not in places
        if form.choices:
            assert example["answer_choices"] == form.choices
            assert example["targets_pretokenized"] in form.choices
    assert task.metric_names == form.metrics


@pytest.mark.parametrize("name", glue.FORMATS)
def test_glue_label_words_are_tfdss(name):
    builder = tfds.builder(f"glue/{name}:{glue.TFDS_VERSION}")
    label = builder.info.features["label"]
    assert tuple(getattr(label, "names", ())) == glue.FORMATS[name].choices
    assert set(glue.FORMATS[name].fields) == set(builder.info.features) - {"label", "idx"}


@pytest.mark.parametrize("name", [name for name, form in superglue.FORMATS.items() if form.choices])
def test_superglue_label_words_are_tfdss(name):
    builder = tfds.builder(f"super_glue/{name}:{superglue.TFDS_VERSION}")
    assert tuple(builder.info.features["label"].names) == superglue.FORMATS[name].choices


def test_without_the_tasks_name(mocked):
    for source, name in ((glue.Glue, "sst2"), (superglue.SuperGlue, "wsc")):
        with_name, without = (
            mixtures.evaluation_examples(source(name, task_prefix=prefix).tasks(BYTES.load())[0], "validation", 1)[0]["inputs_pretokenized"]
            for prefix in (True, False)
        )
        assert with_name.split(" ", 1)[1] == without


def test_few_training_rows(mocked):
    (task,) = glue.Glue("sst2", num_train=2).tasks(BYTES.load())
    assert len(mixtures.example_table(task, "train")) == 2
    assert len(mixtures.example_table(task, "validation")) == 4


def test_mnli_has_both_validation_splits(mocked):
    (task,) = glue.Glue("mnli").tasks(BYTES.load())
    assert {"train", "validation", "validation_mismatched"} <= set(task.splits)


def test_fields_format():
    (row,) = rows(
        tfds_tasks.fields,
        {"question1": "Why?", "question2": "How come?", "label": 1, "idx": 0},
        benchmark="qqp",
        names=("question1", "question2"),
        choices=("not_duplicate", "duplicate"),
    )
    assert row["inputs"] == "qqp question1: Why? question2: How come?"
    assert row["targets"] == "duplicate"
    assert row["answer_choices"] == ["not_duplicate", "duplicate"]


def test_a_hidden_label_is_unknown():
    (row,) = rows(
        tfds_tasks.fields, {"sentence": "x", "label": -1}, benchmark="sst2", names=("sentence",), choices=("negative", "positive")
    )
    assert row["targets"] == tfds_tasks.NO_LABEL


@pytest.mark.parametrize(("score", "text"), [(1.8, "1.8"), (3.25, "3.2"), (0.0, "0.0"), (4.91, "5.0")])
def test_similarity_is_rounded_to_a_fifth(score, text):
    (row,) = rows(tfds_tasks.similarity, {"sentence1": "A.", "sentence2": "B.", "label": score})
    assert row["inputs"] == "stsb sentence1: A. sentence2: B."
    assert row["targets"] == text


def test_multirc_format():
    (row,) = rows(
        tfds_tasks.multirc,
        {
            "paragraph": "<b>Sent 1: </b>It rained.<br>",
            "question": "Did it?",
            "answer": "Yes",
            "label": 1,
            "idx": {"paragraph": 2, "question": 5, "answer": 7},
        },
        choices=("False", "True"),
    )
    assert row["inputs"] == "multirc question: Did it? answer: Yes paragraph: Sent 1: It rained. "
    assert (row["targets"], row["group"]) == ("True", "2-5")


RECORD = {
    "passage": "Ann met Bob.\n@highlight\nThey spoke\n@highlight\nIt was fun",
    "query": "@placeholder was met",
    "entities": ["Ann", "Bob", "Bobby"],
    "answers": ["Bob", "Bobby"],
}


def test_record_format():
    (row,) = rows(tfds_tasks.record, RECORD)
    assert row["inputs"] == "record query: @placeholder was met entities: Ann, Bob, Bobby passage: Ann met Bob. They spoke. It was fun"
    assert row["targets"] == "Bob"
    assert row["references"] == ["Bob", "Bobby"]
    assert row["answer_choices"] == ["Ann", "Bob", "Bobby"]
    assert [row["targets"] for row in rows(tfds_tasks.record, RECORD, split="train")] == ["Bob", "Bobby"]


def test_wsc_format():
    row = {
        "text": "The stable was roomy, which made it pleasant.",
        "span1_text": "The stable",
        "span1_index": 0,
        "span2_text": "it",
        "span2_index": 6,
        "label": 1,
    }
    (found,) = rows(tfds_tasks.wsc, row)
    assert found["inputs"] == "wsc: The stable was roomy, which made *it* pleasant."
    assert (found["targets"], found["group"]) == ("The stable", "True")
    wrong = row | {"label": 0}
    assert rows(tfds_tasks.wsc, wrong, split="train") == []
    assert rows(tfds_tasks.wsc, wrong)[0]["group"] == "False"


@pytest.mark.parametrize(
    ("text", "index", "pronoun", "marked"),
    [
        ("He ran.", 0, "He", "*He* ran."),
        ("Ann saw him.", 2, "him", "Ann saw *him*."),
        ('She said "them" twice', 2, "them", 'She said "*them*" twice'),
        ("A mistaken index", 99, "it", "*A* mistaken index"),
    ],
)
def test_pronoun_marks(text, index, pronoun, marked):
    assert tfds_tasks.mark_pronoun(text, index, pronoun) == marked


def test_data_that_is_not_there_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(*args, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", refuse)
    (task,) = glue.Glue("cola", data_dir=str(tmp_path)).tasks(BYTES.load())
    with pytest.raises(UserError, match=r"glue/cola:2\.0\.0 in .*cannot be read or fetched"):
        mixtures.evaluation_examples(task, "validation")


def test_unknown_tasks_are_refused():
    with pytest.raises(UserError, match="no task 'sst3'.*cola"):
        glue.Glue("sst3")
    with pytest.raises(UserError, match="no task 'sst2'.*boolq"):
        superglue.SuperGlue("sst2")
    with pytest.raises(UserError, match="at least 1"):
        glue.Glue("sst2", num_train=0)
