"""The benchmark of generation: both sides of a case are compared, and it runs and finds their tokens equal."""

import subprocess
import sys

import numpy as np
import pytest

from benchmarks import generate, side_by_side


def test_cases_to_compare_stand_side_by_side():
    cases = generate.cases(quick=False)
    assert len(cases) == 12
    for ours, theirs in zip(cases[::2], cases[1::2], strict=True):
        assert (ours.side, theirs.side) == side_by_side.SIDES
        assert (ours.prompts, ours.dtype) == (theirs.prompts, theirs.dtype)


def test_rows_have_one_prompt_or_one_each(tmp_path):
    rows = np.arange(10.0).reshape(5, 2)
    np.save(tmp_path / "prompt.npy", rows)
    one, each = (generate.Case(prompts, "PyTorch", "float32", batch_size=3).prompt_rows(tmp_path) for prompts in ("one", "each"))
    np.testing.assert_array_equal(one, [rows] * 3)
    np.testing.assert_array_equal(each[0], rows)
    assert (each[1] != each[2]).any() and (each[0] != each[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("prompts", ["none", "one", "each"])
def test_a_quick_run_prints_a_line_a_case_and_writes_what_it_is_told(prompts, tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "benchmarks.generate", "--quick", f"--only={prompts}-float32", f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "PyTorch" in done.stdout
    lines = output.read_text().splitlines()
    assert len(lines) == 3
    assert all(line.endswith(",1.0") for line in lines[1:])


def test_a_case_that_is_not_there_is_one_line():
    done = subprocess.run([sys.executable, "-m", "benchmarks.generate", "--only=many"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no case; wanted the beginning of none-float32" in done.stderr
