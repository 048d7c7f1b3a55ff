"""Options listed in many ways, and inputs turned into targets: what must stay true whatever is drawn."""

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data.instructions.record import Record
from prompt_tuning.data.instructions.variations import inverted, with_options, with_suffix, without_options
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.templates import options_block
from prompt_tuning.errors import UserError

WORDS = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=6), min_size=2, max_size=8, unique=True)


def made(choices, target, inputs="Which?", identity="id"):
    return Record("f:1", identity, TextRow(inputs, target, tuple(choices)))


@settings(deadline=None)
@given(WORDS, st.data(), st.booleans(), st.booleans(), st.integers(0, 5))
def test_the_answer_stays_the_answer(choices, data, lettered, listed, seed):
    target = data.draw(st.sampled_from(choices))
    record = made(choices, target, f"Which?\n{options_block(choices)}\nSay it." if listed else "Which?")
    row = with_options(record, lettered=lettered, seed=seed).row
    assert row.targets in row.answer_choices and len(set(row.answer_choices)) == len(choices)
    lines = [re.fullmatch(r"([-*+]|\W?[A-Z]\W) (.*)", line) for line in row.inputs.split("\n")]
    marks = {line[2]: line[1] for line in lines if line}
    assert set(marks) == set(choices)
    if lettered:
        assert re.sub(r"\W", "", marks[target]) == re.sub(r"\W", "", row.targets)
        assert [re.sub(r"\W", "", mark) for mark in marks.values()] == list(string.ascii_uppercase[: len(choices)])
    else:
        assert row.targets == target and set(row.answer_choices) == set(choices)
    assert options_block(choices) not in row.inputs or not lettered
    assert row.inputs.count(":") == 1, "one list, under one header"
    assert row.inputs.startswith("Which?\n") and row.inputs.endswith("Say it.") == listed


def test_order_header_and_marks_vary_and_are_the_examples_own():
    records = [made("abc", "b", identity=str(number)) for number in range(400)]
    rows = [with_options(record, lettered=True, seed=0).row for record in records]
    assert rows == [with_options(record, lettered=True, seed=0).row for record in records]
    assert len({row.inputs for row in rows}) > 100, "6 orders, 6 headers, 4 ways to letter"
    letters = [re.sub(r"\W", "", row.targets) for row in rows]
    for letter in "ABC":
        assert 95 < letters.count(letter) < 172, "133 each, four standard deviations of 9.4: the place tells nothing of the answer"


def test_free_text_stays_as_it_is_and_too_many_choices_are_refused():
    free = Record("f:1", "id", TextRow("Why?", "Because."))
    assert with_options(free, lettered=True, seed=0) == free
    many = [str(number) for number in range(27)]
    assert with_options(made(many, "3"), lettered=False, seed=0).row.targets == "3"
    with pytest.raises(UserError, match="f:1: 27 choices, wanted at most 26"):
        with_options(made(many, "3"), lettered=True, seed=0)


def test_a_share_is_turned_round():
    records = [Record("f", str(number), TextRow(f"in {number}", f"out {number}")) for number in range(1000)]
    found = inverted(records, frac=0.3, seed=0)
    turned = [(old, new) for old, new in zip(records, found, strict=True) if old != new]
    assert 242 < len(turned) < 358, "300 and four standard deviations of 14.5"
    assert all(new.row.targets == old.row.inputs and old.row.targets in new.row.inputs for old, new in turned)
    assert inverted(records[::-1], frac=0.3, seed=0) == found[::-1]
    assert inverted(records, frac=0.0, seed=0) == records
    assert len({new.row.inputs.replace(old.row.targets, "") for old, new in turned}) == 4


@given(WORDS, st.booleans())
def test_choices_stand_behind_every_input_or_behind_none(choices, listed):
    block = options_block(choices)
    record = made(choices, choices[0], f"Which?\n{block}\nSay it." if listed else "Which?\nSay it.")
    behind, bare = with_suffix(record).row, without_options(record).row
    assert behind.inputs.count(block) == 1 and bare.inputs == "Which?\nSay it."
    assert behind.inputs == (record.row.inputs if listed else f"Which?\nSay it.\n{block}")
    assert behind.answer_choices == bare.answer_choices == tuple(choices) and behind.targets == bare.targets == choices[0]
    assert with_suffix(with_suffix(record)) == with_suffix(record)
    free = Record("f:1", "id", TextRow("Tell.", "so"))
    assert with_suffix(free) == without_options(free) == free
