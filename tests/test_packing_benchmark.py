"""The benchmark of packing: all ways take the same examples, and it runs and finds the packed loss equal to PEFT's."""

import csv
import subprocess
import sys

import pytest

from benchmarks import packing

TINY = {"data": "", "rows": 4, "input_length": 64, "target_length": 16, "steps": 2, "tiny": True}


def test_packed_rows_hold_the_examples_in_order_of_the_stream():
    case = packing.Case("packed", 3, **TINY)
    rows = packing.packed_rows(case)
    assert len(rows) == case.rows
    assert all(sum(len(example["inputs"]) + case.prompt_length for example in row) <= 64 + case.prompt_length for row in rows)
    stream = [example["inputs"].tolist() for example, _ in zip(packing.examples_of(case), range(200), strict=False)]
    assert all(example["inputs"].tolist() in stream for row in rows for example in row)
    assert sum(map(len, rows)) > 2 * case.rows


def test_the_longest_is_the_longest_of_what_is_padded():
    case = packing.Case("longest", 3, **TINY)
    lengths = packing.longest(case)
    seen = [example for batch in packing.padded_batches(case) for example in batch]
    assert max(len(example["inputs"]) for example in seen) <= lengths["input_length"] <= 64
    assert max(len(example["targets"]) for example in seen) <= lengths["target_length"] <= 16


def test_a_window_of_buckets_holds_the_stream():
    case = packing.Case("bucketed", 3, **TINY)
    window = packing.bucketed_batches(case)
    assert len({bucket for bucket, _ in window}) > 1
    stream = [example["inputs"].tolist() for example, _ in zip(packing.examples_of(case), range(len(window) * case.rows), strict=False)]
    assert sorted(stream) == sorted(example["inputs"].tolist() for _, examples in window for example in examples)


@pytest.mark.slow
def test_a_quick_run_compares_all_ways(tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "benchmarks.packing", "--quick", f"--output={output}"]
    subprocess.run(command, capture_output=True, text=True, check=True)
    with open(output, newline="") as file:
        found = {row["way"]: row for row in csv.DictReader(file)}
    assert list(found) == ["ours, packed", "ours, bucketed", "ours, padded", "PEFT, longest", "PEFT, batch"]
    assert float(found["PEFT, longest"]["to_peft_longest"]) == 1
    assert int(found["ours, packed"]["examples"]) > int(found["ours, padded"]["examples"])
