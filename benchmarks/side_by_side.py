"""What the benchmarks beside PyTorch share: measuring processes, taking steps, and how results are shown and kept."""

import argparse
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning import text_tables

THREADS = 2
SIDES = ("prompt_tuning", "PyTorch")
DTYPES = ("float32", "bfloat16")
DEVICES = ("cpu", "gpu")
STARTED = "BENCHMARK_STARTED"  # Environment: time.monotonic() when the process was asked for; the clock is the machine's.

# How far the losses of both sides may be apart, relative to the larger: rounding in the order of sums, seen over the mean of hundreds of
# tokens. On a GPU both sides multiply float32 numbers as TensorFloat-32, of ten bits.
_TOLERANCES = {("cpu", "float32"): 1e-4, ("gpu", "float32"): 2e-3, ("cpu", "bfloat16"): 5e-3, ("gpu", "bfloat16"): 5e-3}


def arguments(doc: str | None, results: pathlib.Path, *, only: str) -> argparse.ArgumentParser:
    """What every benchmark is told; `only` is the name of a case, for the help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round: shows that it runs, measures nothing")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each case (default 3)")
    parser.add_argument("--only", default="", help=f"only cases whose name, as {only}, starts with this")
    kept = f"{results.parent.name}/{results.name}"
    parser.add_argument("--output", type=pathlib.Path, default=None, help=f"CSV (default {kept}; none if quick)")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    return parser


def measure(module: str, what: Mapping[str, Any], folder: pathlib.Path) -> dict[str, Any]:
    """Runs one measurement, `python -m MODULE --worker WHAT --folder FOLDER`, in a process of its own; gives the JSON that it prints last.

    On a CPU (unless `what` has `device` "gpu") the process has two threads on the first two cores, whatever the machine has. Its
    compilation cache is in the folder, apart from those of other measurements: some methods compile to one program.
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "TOKENIZERS_PARALLELISM": "false"}
    own = f"{zlib.crc32(json.dumps(what).encode()):08x}"
    environment |= {"XDG_CACHE_HOME": str(folder / "cache" / own), "HF_HUB_OFFLINE": "1"}
    pin: Callable[[], None] | None = None
    if what.get("device") == "gpu":
        environment |= {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    else:
        environment |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
        environment["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # Huge pages for both sides, as our commands ask for.
        cores = sorted(os.sched_getaffinity(0))[:THREADS]
        pin = lambda: os.sched_setaffinity(0, cores)  # noqa: E731
    if what.get("side") == "PyTorch":
        # Freed memory is kept, as ours does for itself: page faults take a third of a step at 512 tokens.
        environment |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": "268435456"}
    command = [sys.executable, "-m", module, "--worker", json.dumps(what), "--folder", str(folder)]
    environment[STARTED] = str(time.monotonic())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, preexec_fn=pin)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def in_turns(module: str, cases: Sequence[Any], folder: pathlib.Path, *, rounds: int, said: Callable[[Any, dict], str]) -> dict[Any, list]:
    """Measures every case (a dataclass) once a round, forth and back, and says on standard error what came; gives the runs of each case."""
    runs: dict[Any, list[dict]] = {case: [] for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else reversed(cases):
            runs[case].append(measure(module, dataclasses.asdict(case), folder))
            print(f"round {number + 1}: {said(case, runs[case][-1])}", file=sys.stderr, flush=True)
    return runs


def since_started() -> float:
    """Seconds since this process was asked for."""
    return time.monotonic() - float(os.environ[STARTED])


def timed_steps(step: Callable[[], float], *, steps: int) -> dict[str, Any]:
    """Takes `steps` steps behind a first one, with `step` giving the loss once all of a step is done: `first`, `steps`, `loss`."""
    first_loss = step()
    first, times = since_started(), []
    for _ in range(steps):
        start = time.monotonic()
        step()
        times.append(time.monotonic() - start)
    return {"first": first, "steps": times, "loss": first_loss}


def our_steps(
    experiment: Any,
    examples: Sequence[Any] | Mapping[str, Any],
    *,
    steps: int,
    started: Callable[[str, tuple[int, ...]], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Steps of this package, as the train command takes them: `timed_steps`, `operations`, `trained` and `memory` (GPU, bytes).

    `examples` may be a batch that is laid out already. `started` gives what is trained its first values, by name and shape; None leaves
    the method's own.
    """
    import jax

    from prompt_tuning import assembly, trainable, training
    from prompt_tuning.data import features
    from prompt_tuning.planning.counting import operations

    built = assembly.assemble(experiment)
    if started is not None:
        tuned = {name: started(name, value.shape) for name, value in trainable.named(built.tuned).items()}
        placed = {name: jax.device_put(value, built.places[name]) for name, value in tuned.items()}
        built = dataclasses.replace(built, tuned=trainable.nested(placed))
    trained = sum(value.size for value in jax.tree.leaves(built.tuned))
    ready = training.trainer(experiment, built)
    lengths = {"input_length": experiment.input_length, "target_length": experiment.target_length}
    laid = examples if isinstance(examples, Mapping) else features.layout(examples, **lengths, prompt=experiment.method.layout)
    state = ready.state

    def step() -> float:
        nonlocal state
        state, metrics = ready.step(state, built.frozen, training.on_devices(laid, built.mesh))
        jax.block_until_ready((state, metrics))
        return float(metrics["loss"])

    found = timed_steps(step, steps=steps) | {"trained": trained}
    found["memory"] = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    jaxpr = ready.step.trace(state, built.frozen, training.on_devices(laid, built.mesh)).jaxpr
    return found | {"operations": float(operations(jaxpr.jaxpr))}


def their_steps(loss_of: Callable[[], Any], optimizer: Any, *, steps: int, dtype: str, device: str = "cpu") -> dict[str, Any]:
    """Steps of PyTorch on the parameters of `optimizer`: `timed_steps`, `trained` and `memory` (GPU, bytes)."""
    import torch

    on_gpu, half = device == "gpu", dtype == "bfloat16"

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16) if half else contextlib.nullcontext():
            loss = loss_of()
        loss.backward()
        optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()
        return loss.item()

    found = timed_steps(step, steps=steps)
    found["trained"] = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
    return found | {"memory": torch.cuda.max_memory_allocated() if on_gpu else None}


def with_memory(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, with the largest resident set of this process (bytes) as `memory` where no device gave its own."""
    return dict(found) | {"memory": found.get("memory") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def check_losses(losses: Sequence[float], *, dtype: str, device: str = "cpu", what: str) -> None:
    """Ends the program where losses that should be the same are not."""
    if not np.ptp(losses) <= _TOLERANCES[device, dtype] * np.max(losses):  # Which a loss that is no number is not.
        raise SystemExit(f"the sides do not compute the same: {what} {dtype} losses {losses}")


def median_seconds(runs: Sequence[Mapping[str, Any]], *, of: str = "steps") -> float:
    """The median over all times of all runs."""
    return statistics.median(second for run in runs for second in run[of])


def first_again(runs: Sequence[Mapping[str, Any]]) -> float | str:
    """The median first time of all runs but the first, whose compilation cache was empty; nothing where there was one only."""
    return round(statistics.median(run["first"] for run in runs[1:]), 2) if runs[1:] else ""


def keep(rows: Sequence[Mapping[str, object]], path: pathlib.Path) -> None:
    """Writes results as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {path}")


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """The results as text."""
    lines = [list(rows[0]), *([str(value) for value in line.values()] for line in rows)]
    return text_tables.aligned(lines, "r")
