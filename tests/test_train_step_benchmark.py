"""The benchmark of a training step: it runs and finds both sides' losses equal."""

import subprocess
import sys

import pytest

from benchmarks import side_by_side, train_step


def test_cases_to_compare_stand_side_by_side():
    cases = train_step.cases(quick=False)
    assert len(cases) == 16
    for ours, theirs in zip(cases[::2], cases[1::2], strict=True):
        assert (ours.side, theirs.side) == side_by_side.SIDES
        assert (ours.method, ours.input_length, ours.dtype) == (theirs.method, theirs.input_length, theirs.dtype)


@pytest.mark.slow
def test_a_quick_run_prints_a_line_a_case_and_writes_what_it_is_told(tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "benchmarks.train_step", "--quick", "--only=prompt-16-float32", f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "PyTorch" in done.stdout
    assert len(output.read_text().splitlines()) == 3
