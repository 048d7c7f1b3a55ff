"""What the benchmarks beside PyTorch share: measuring processes, and how results are shown and kept."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

THREADS = 2
SIDES = ("prompt_tuning", "PyTorch")
DTYPES = ("float32", "bfloat16")
STARTED = "BENCHMARK_STARTED"  # Environment: time.monotonic() when the process was asked for; the clock is the machine's.


def measure(module: str, what: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Runs one measurement, `python -m MODULE --worker WHAT --folder FOLDER`, in a process of its own; gives the JSON that it prints last.

    The process has two threads on the first two cores, whatever the machine has, and a compilation cache in the folder.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "TOKENIZERS_PARALLELISM": "false"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    if what.get("side") == "PyTorch":
        # Freed memory is kept, as ours does for itself: page faults take a third of a step at 512 tokens.
        environment |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": "268435456"}
    command = [sys.executable, "-m", module, "--worker", json.dumps(what), "--folder", str(folder)]
    cores = sorted(os.sched_getaffinity(0))[:THREADS]
    done = subprocess.run(
        command,
        env=environment | {STARTED: str(time.monotonic())},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def keep(rows: Sequence[Mapping[str, object]], path: pathlib.Path) -> None:
    """Writes results as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def table(rows: list[dict[str, object]]) -> str:
    """The results as text."""
    lines = [list(rows[0]), *([str(value) for value in line.values()] for line in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
