"""The benchmark of the loss: it runs, and every way gives one loss."""

import csv
import subprocess
import sys


def test_a_quick_run_compares_all_ways(tmp_path):
    output = tmp_path / "out.csv"
    subprocess.run([sys.executable, "-m", "benchmarks.loss", "--quick", "--steps=1", f"--output={output}"], capture_output=True, check=True)
    with open(output, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["trained"], row["chunks"]) for row in rows] == [("False", "1"), ("False", "4"), ("True", "1"), ("True", "4")]
    assert len({round(float(row["loss"]), 4) for row in rows}) == 1
