"""Exemplars: never the example itself, drawn by its identity, as many as fit."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning.data.instructions.few_shot import with_exemplars
from prompt_tuning.data.instructions.record import Record
from prompt_tuning.data.rows import TextRow


def made(number, inputs=None):
    return Record(f"f:{number}", f"id{number}", TextRow(inputs or f"input <{number}>", f"target <{number}>"))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 6), st.integers(0, 3), st.data())
def test_the_example_itself_is_never_among_them(size, count, seed, data):
    inputs = data.draw(st.lists(st.sampled_from("abcdef"), min_size=size, max_size=size))
    pool = [made(number, f"<{text}>") for number, text in enumerate(inputs)]
    for record, found in zip(pool, with_exemplars(pool, pool, count=count, seed=seed), strict=True):
        assert found.row.inputs.endswith(record.row.inputs) and found.row.targets == record.row.targets
        shown = re.findall(r"<([a-f])>", found.row.inputs[: -len(record.row.inputs)])
        assert record.row.inputs[1] not in shown
        assert len(set(shown)) == len(shown) == min(count, len(set(inputs)) - 1)


def test_neither_order_nor_neighbours_of_the_example_change_them():
    pool = [made(number) for number in range(50)]
    whole = with_exemplars(pool, pool, count=3, seed=0)
    assert with_exemplars(pool[::-1][:20], pool, count=3, seed=0) == whole[::-1][:20]
    assert sum(one == other for one, other in zip(whole, with_exemplars(pool, pool, count=3, seed=1), strict=True)) < 3


def test_they_stand_solved_before_the_input_and_stop_where_no_more_fit():
    pool = [made(1), made(2)]
    (found,) = with_exemplars(pool[:1], pool, count=5, seed=0)
    assert found.row.inputs == "input <2>\ntarget <2>\n\ninput <1>"
    assert with_exemplars(pool[:1], pool, count=5, seed=0, input_tokens=30, count_tokens=len)[0].row.inputs == "input <1>"
    assert with_exemplars(pool[:1], pool, count=5, seed=0, input_tokens=31, count_tokens=len)[0].row.inputs == found.row.inputs


def test_every_other_example_is_drawn_as_often():
    pool = [made(number) for number in range(11)]
    record = with_exemplars([made(f"x{number}") for number in range(1100)], pool, count=1, seed=0)
    counts = [sum(f"input <{number}>" in found.row.inputs for found in record) for number in range(11)]
    assert sum(counts) == 1100 and min(counts) > 60 and max(counts) < 140, "100 each, four standard deviations of 10"
