"""The benchmark of all methods: both sides of a case are compared, and it runs and finds their losses equal."""

import csv
import subprocess
import sys

import pytest

from benchmarks import methods, side_by_side


def test_cases_to_compare_stand_side_by_side():
    cases = methods.cases(quick=False, device="cpu", dtype="float32")
    assert len(cases) == 2 * 2 * len(methods.METHODS) * 2
    for ours, theirs in zip(cases[::2], cases[1::2], strict=True):
        assert (ours.side, theirs.side) == side_by_side.SIDES
        assert (ours.name, ours.same_function) == (theirs.name, theirs.same_function)
    assert {case.name.partition("-")[2] for case in cases if not case.same_function} == {"128-prefix", "512-prefix"}


def test_means_are_over_what_computes_the_same_and_old_rows_give_way_to_new():
    def line(method, ratio, same):
        named = {"model": "t5", "tokens": "1x1", "method": method, "dtype": "float32"}
        return named | {"seconds_ratio": ratio, "memory_ratio": ratio, "same_function": same}

    old = [line("lora", "9.0", "True"), line("ia3", "0.5", "True"), line(methods.MEAN, "1.0", "")]
    rows = methods.joined(old, [line("lora", 8.0, True), line("prefix", 100.0, False)])
    assert [each["method"] for each in rows] == ["ia3", "lora", "prefix"]
    mean = methods.mean(rows)
    assert (mean["method"], mean["seconds_ratio"], mean["memory_ratio"]) == (methods.MEAN, 2.0, 2.0)


def test_losses_that_differ_end_the_benchmark():
    side_by_side.check_losses([6.35, 6.3501], dtype="float32", what="lora")
    for wrong in (6.36, float("nan")):
        with pytest.raises(SystemExit, match="do not compute the same: lora float32"):
            side_by_side.check_losses([6.35, wrong], dtype="float32", what="lora")


# A prompt that is copied, a network whose every matrix is, tasks, a prefix in a cache, and a change of the base.
@pytest.mark.slow
@pytest.mark.parametrize("case", ["t5-24-p_tuning", "t5-24-mpt", "llama-24-prefix", "llama-24-pissa", "t5-24-prefix"])
def test_a_quick_run_prints_a_line_a_method_and_writes_what_it_is_told(case, tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "benchmarks.methods", "--quick", f"--only={case}", f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{case} PyTorch" in done.stderr and methods.MEAN in done.stdout
    with open(output, newline="") as file:
        found, mean = csv.DictReader(file)
    assert found["same_function"] == str(case != "t5-24-prefix")
    assert (mean["method"], mean["seconds_ratio"]) == (methods.MEAN, found["seconds_ratio"] if case != "t5-24-prefix" else "")
    assert float(found["our_memory_gb"]) > 0 and float(found["their_seconds"]) > 0


def test_a_case_that_is_not_there_is_one_line():
    done = subprocess.run([sys.executable, "-m", "benchmarks.methods", "--only=gpt"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("wanted the beginning of a name such as t5-128-lora or llama-512-prefix")
