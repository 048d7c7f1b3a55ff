"""The benchmark of sweeps: rows of other work are kept, and it runs and finds both sides' losses equal."""

import csv
import subprocess
import sys

import pytest

from benchmarks import side_by_side, sweep


def test_new_rows_take_the_place_of_old_ones_of_the_same_work(tmp_path):
    sizes = sweep.Sizes(tiny=True, rounds=2)
    path = tmp_path / "sweep.csv"
    side_by_side.keep([sweep.row("steps", sizes, [4.0, 2.0], [1.0, 2.0]), sweep.row("commands", sizes, [9.0], [3.0])], path)
    rows = sweep.joined(path, [sweep.row("steps", sizes, [4.0], [1.0])])
    assert [(row["work"], float(row["ratio"])) for row in rows] == [("steps", 0.25), ("commands", 0.333)]


@pytest.mark.slow
def test_a_quick_run_prints_a_line_a_piece_of_work_and_writes_what_it_is_told(tmp_path):
    output = tmp_path / "out.csv"
    command = [sys.executable, "-m", "benchmarks.sweep", "--quick", f"--output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["work"] for row in rows] == list(sweep.PARTS)
    assert all(float(row["seconds_together"]) > 0 and row["runs"] == "8" for row in rows)
