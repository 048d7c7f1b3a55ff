"""Tasks over rows of Python: what is made without SeqIO is what SeqIO gives, token for token."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data import example_tables, mixtures, row_tasks, text_tasks
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.vocabularies import Bytes, SentencePiece
from prompt_tuning.errors import UserError
from tests.data.test_plain_vocabularies import TEXTS

NUMBERS = itertools.count()
VOCABULARIES = {"pieces": SentencePiece().load(), "bytes": Bytes().load()}


@st.composite
def text_rows(draw):
    """Rows as sources give them: choices that hold the target, spans within it."""
    choices = draw(st.lists(TEXTS, unique=True, max_size=3))
    targets = draw(st.sampled_from(choices)) if choices else draw(TEXTS)
    begin, end = sorted((draw(st.integers(0, len(targets))), draw(st.integers(0, len(targets)))))
    spans = ((begin, end),) if draw(st.booleans()) and end > begin else ()
    return TextRow(draw(TEXTS), targets, tuple(choices), tuple(draw(st.lists(TEXTS, max_size=2))), draw(TEXTS), spans)


def task_of(rows, vocabulary):
    return row_tasks.register(
        f"rows{next(NUMBERS)}", settings=rows, vocabulary=vocabulary, read=lambda split: rows, splits=("train",), metric_names=("accuracy",)
    )


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        assert getattr(one[name], "dtype", None) == getattr(other[name], "dtype", None)


@pytest.mark.parametrize("kind", VOCABULARIES)
@settings(deadline=None, max_examples=12)  # SeqIO takes a quarter of a second for each.
@given(rows=st.lists(text_rows(), min_size=1, max_size=4))
def test_examples_and_tables_are_those_of_the_same_task_in_seqio(kind, rows):
    task = task_of(rows, VOCABULARIES[kind])
    assert task.seqio.name == task.name
    through = map(text_tasks.as_example, example_tables.dataset_of(task.seqio, "train").as_numpy_iterator())
    for mine, theirs in zip(mixtures.evaluation_examples(task, "train"), through, strict=True):
        same(mine, theirs)
    mine = outcome(lambda: example_tables.example_table(task, "train", True))
    theirs = outcome(lambda: example_tables._through_seqio(task.seqio, "train", True))
    assert type(mine) is type(theirs)
    if isinstance(mine, str):
        assert mine == theirs
    else:
        same(mine.arrays(), theirs.arrays())
        assert mine.choices == theirs.choices == type(mine).of_arrays(mine.arrays()).choices


def outcome(make):
    """What is made, or what is said instead."""
    try:
        return make()
    except UserError as error:
        return str(error).replace("choices ()", "choices []")


def test_a_task_of_seqio_over_rows_is_tokenized_without_its_pipeline():
    rows = [TextRow("a", "b")]
    made = text_tasks.register(
        f"rows{next(NUMBERS)}",
        settings=rows,
        vocabulary=VOCABULARIES["bytes"],
        source=lambda: text_tasks.rows_source(lambda split: rows, ("train",)),
    )
    assert made.read("train") is rows
    table = example_tables.example_table(made, "train")
    assert (table[0]["inputs"].tolist(), table[0]["targets"].tolist()) == ([100, 1], [101, 1])


def test_a_task_is_the_same_each_time_and_can_be_copied():
    settings = ("same", 1)
    make = lambda: row_tasks.register("again", settings=settings, vocabulary=VOCABULARIES["bytes"], read=list, splits=("train",))  # noqa: E731
    assert make() is make()
    assert copy.copy(make()).name == make().name
    with pytest.raises(UserError, match="task again has no split 'test'; it has train"):
        list(row_tasks.examples(make(), "test"))


def test_limits_and_columns():
    rows = [TextRow(str(i), str(i)) for i in range(5)]
    task = task_of(rows, VOCABULARIES["bytes"])
    assert [example["inputs_pretokenized"] for example in row_tasks.examples(task, "train", 2)] == ["0", "1"]
    fields = {"inputs", "inputs_pretokenized", "targets", "targets_pretokenized", "group", "answer_choices", "references"}
    assert next(row_tasks.examples(task, "train")).keys() == fields
    assert dataclasses.asdict(rows[0])["group"] == ""
