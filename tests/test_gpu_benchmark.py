"""The benchmark of large models: its sizes are the published ones, and tiny ones run through it on a CPU."""

import csv
import math
import subprocess
import sys

import pytest

from benchmarks import gpu, models, side_by_side


@pytest.mark.parametrize(("model", "millions"), [("t5_large", 783.2), ("t5_xl", 2849.8), ("llama_7b", 6738.4)])
def test_models_have_the_published_number_of_parameters(model, millions):
    case = next(case for case in gpu.cases(quick=False) if case.model == model)
    numbers = sum(math.prod(shape) for shape, _ in models.parameters(case.kind, case.sizes).values())
    assert numbers / 1e6 == pytest.approx(millions, abs=0.1)


def test_sides_stand_side_by_side_and_unrolled_layers_are_ours_alone():
    cases = gpu.cases(quick=False, unrolled=True)
    by_method = {name: [case for case in cases if case.name == name] for name in dict.fromkeys(case.name for case in cases)}
    for name, same in by_method.items():
        assert tuple(case.side for case in same[:2]) == side_by_side.SIDES
        assert [case.unrolled for case in same] == [False, False, True][: 3 if name.endswith("prompt") else 2]


@pytest.mark.slow
def test_a_quick_run_compares_the_sides_and_keeps_other_rows(tmp_path):
    pytest.importorskip("peft")
    output = tmp_path / "out.csv"
    for only in ("t5_large-prompt", "llama_7b-lora"):
        command = [sys.executable, "-m", "benchmarks.gpu", "--quick", f"--only={only}", f"--output={output}", "--add"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f"{only} PyTorch" in done.stderr
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [(model, side) for model in ("t5_large", "llama_7b") for side in side_by_side.SIDES]
    assert [(row["model"], row["side"]) for row in rows] == wanted
    assert all(float(row["seconds_per_step"]) > 0 and row["to_pytorch"] for row in rows)
