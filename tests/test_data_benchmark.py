"""The benchmark of the data pipeline: both sides of a case are compared, and it runs and finds their batches equal."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import data
from prompt_tuning.data import features

LENGTHS = {"input_length": 12, "target_length": 7}
ids = st.lists(st.integers(2, 99), max_size=6).map(lambda tokens: [*tokens, features.EOS_ID])


def test_cases_to_compare_stand_side_by_side():
    cases = data.cases(quick=False)
    for ours, theirs in zip(cases[::2], cases[1::2], strict=True):
        assert (ours.side, theirs.side) == data.SIDES
        assert (ours.data, ours.templates, ours.rows) == (theirs.data, theirs.templates, theirs.rows)


@pytest.mark.parametrize("case", data.cases(quick=True)[::2], ids=lambda case: case.data)
def test_rows_are_the_same_each_time_and_so_many(case):
    rows = list(data.made_rows(case))
    assert len(rows) == case.rows and rows == list(data.made_rows(case))


@given(st.lists(st.tuples(ids, ids), min_size=1, max_size=60))
def test_plain_packing_is_that_of_the_package(examples):
    """The lists' packing and layout, written apart from ours, give its rows and its arrays."""
    plain = list(data.packed(examples, **LENGTHS))
    ours = list(features.pack([{"inputs": inputs, "targets": targets} for inputs, targets in examples], **LENGTHS))
    assert [[(each["inputs"], each["targets"]) for each in row] for row in ours] == plain
    found, wanted = data.laid(plain, **LENGTHS), features.layout_rows(ours, **LENGTHS)
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_batches_that_differ_end_the_benchmark():
    data.check_digests(["a", "a"], what="short")
    with pytest.raises(SystemExit, match="do not make the same batches: short rows"):
        data.check_digests(["a", "b"], what="short")


@pytest.mark.slow
def test_a_quick_run_prints_a_line_for_each_kind_of_rows_and_writes_what_it_is_told(tmp_path):
    pytest.importorskip("datasets")
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "benchmarks.data", "--quick", "--step-seconds=2", f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "short datasets" in done.stderr
    with open(output, newline="") as file:
        found = list(csv.DictReader(file))
    assert [line["data"] for line in found] == ["short", "long"]
    for line in found:
        assert 0.5 < float(line["filled"]) < 1 and float(line["steps"]) > 1
        assert float(line["our_first"]) > float(line["our_made"]) > 0 and int(line["their_tokens_per_second"]) > 0


def test_a_case_that_is_not_there_is_one_line():
    done = subprocess.run([sys.executable, "-m", "benchmarks.data", "--only=images"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("no case; wanted the beginning of short or long")
