"""The table of plans in docs/planning.md: which run fits which machine, and how long a training step takes at least.

    python -m experiments.plans.run [--only=t5_1_1_xxl-prompt] [--topologies=v5e:4x4,h100:8]   # plans what plans.csv lacks
    python -m experiments.plans.run --docs                                                     # writes the table into docs/planning.md

A plan takes one to several minutes, most of it the compiler's, and stands in plans.csv once it is made: the same command goes on where an
earlier one stopped. 32 rows of 512/64 tokens, computed in bfloat16; a frozen base in bfloat16, weights that are trained in float32. A
step that does not fit with the products of its layers kept is planned once more with their inputs alone.
"""

import argparse
import csv
import json
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from prompt_tuning import files

RESULTS = pathlib.Path(__file__).parent / "plans.csv"
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "planning.md"
TOPOLOGIES = ("v5e:4x4", "v6e:4x4", "v5p:2x2x4", "h100:8")
# What is kept of a layer for the backward pass: the second where a step does not fit with the first.
REMATS = ("products", "full")
METHODS = ("prompt", "lora", "full")
# Chips that share out the weights: of 16, and of the eight H100s.
MODELS = {
    "t5_1_1_small": (1, 1),
    "t5_1_1_base": (1, 1),
    "t5_1_1_large": (1, 1),
    "t5_1_1_xl": (4, 1),
    "t5_1_1_xxl": (4, 2),
    "llama_2_7b": (4, 2),
}
_BEGIN, _END = "<!-- plans -->", "<!-- /plans -->"

Row = dict[str, str]


def command(model: str, method: str, topology: str, remat: str) -> list[str]:
    """The plan's own command."""
    shared = MODELS[model][topology.startswith("h100")]
    trained, sizes = method == "full", "decoder_sizes" if model.startswith("llama") else "sizes"
    settings = {
        f"{sizes}.named.dtype": "'bfloat16'",
        f"{sizes}.named.remat": f"'{remat}'",
        f"{sizes}.named.param_dtype": "'float32'" if trained else "'bfloat16'",
        "sharding.Mesh.model": shared,
        "sharding.Mesh.fsdp": trained and shared > 1,
        "BATCH_SIZE": 32,
        "INPUT_LENGTH": 512,
        "TARGET_LENGTH": 64,
    }
    gin = [f"--gin_file=configs/{kind}s/{name}.gin" for kind, name in (("model", model), ("method", method))]
    flags = [f"--gin.{name}={value}" for name, value in settings.items()]
    return [sys.executable, "-m", "prompt_tuning.plan", f"--topology={topology}", "--programs=train", "--json=-", *gin, *flags]


def row(model: str, method: str, topology: str) -> Row:
    """One plan as a line of the CSV; bytes on each chip in GiB, times in milliseconds."""
    started = time.monotonic()
    for remat in REMATS:
        done = subprocess.run(command(model, method, topology, remat), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{model} {method} {topology}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout)
        if found["fits"]:
            break
    step, mesh = found["programs"]["train"], found["mesh"]
    parts, bounds = step["parts"], step["bounds"]

    def gib(size: int | None) -> str:
        return "" if size is None else f"{size / 2**30:.3f}"

    def ms(seconds: float | None) -> str:
        return "" if seconds is None else f"{seconds * 1e3:.2f}"

    return {
        "model": model,
        "method": method,
        "topology": topology,
        "mesh": f"{mesh['data']}x{mesh['model']}{' fsdp' if mesh['fsdp'] else ''}",
        "remat": remat,
        "fits": "yes" if found["fits"] else "no",
        "all_gib": gib(found["bytes_per_device"]),
        "weights_gib": gib(parts["frozen_weights"] + parts["tuned_weights"]),
        "optimizer_gib": gib(parts["optimizer"]),
        "temporaries_gib": gib(parts["temporaries"]),
        "tflop": f"{found['flops'] / 1e12:.2f}",
        "compute_ms": ms(bounds["compute"]),
        "memory_ms": ms(bounds["memory"]),
        "interconnect_ms": ms(bounds["interconnect"]),
        "at_least_ms": ms(found["step_seconds_bound"]),
        "planned_secs": f"{time.monotonic() - started:.0f}",
    }


def read() -> list[Row]:
    """The plans that are made."""
    if not RESULTS.exists():
        return []
    with open(RESULTS, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(rows: Sequence[Row]) -> None:
    """Keeps the plans, in the order of the table."""
    order = {name: place for names in (MODELS, METHODS, TOPOLOGIES) for place, name in enumerate(names)}
    ordered = sorted(rows, key=lambda each: [order[each[name]] for name in ("model", "method", "topology")])
    files.write_csv(RESULTS, ordered, list(rows[0]))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """The plans in Markdown: a line for each model and method, a column for each machine."""
    found = {(each["model"], each["method"], each["topology"]): each for each in rows}
    lines = [["model", "method", *TOPOLOGIES], ["---"] * (2 + len(TOPOLOGIES))]
    for model in MODELS:
        for method in METHODS:
            cells = [_cell(found.get((model, method, topology))) for topology in TOPOLOGIES]
            if any(cells):
                lines.append([model, method, *(cell or "not planned" for cell in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(one: Mapping[str, str] | None) -> str:
    if one is None:
        return ""
    if one["fits"] == "no":
        return f"**does not fit**: {float(one['all_gib']):.1f} GiB or more ({one['mesh']})"
    remat = ", remat full" if one["remat"] == "full" else ""
    return f"{float(one['all_gib']):.1f} GiB, {float(one['at_least_ms']):.1f} ms ({one['mesh']}{remat})"


def with_table(text: str, rows: Sequence[Mapping[str, str]]) -> str:
    """The page with the table of these rows between its marks."""
    return re.sub(f"{_BEGIN}.*{_END}", lambda _: f"{_BEGIN}\n{table(rows)}\n{_END}", text, flags=re.DOTALL)


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only plans whose MODEL-METHOD starts with this")
    parser.add_argument("--methods", default=",".join(METHODS), help="default %(default)s")
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES), help="default %(default)s")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/planning.md and plan nothing")
    flags = parser.parse_args(argv)
    rows = read()
    if flags.docs:
        files.atomic_write(DOCS, with_table(DOCS.read_text(encoding="utf-8"), rows))
        return
    made = {(each["model"], each["method"], each["topology"]) for each in rows}
    for topology in flags.topologies.split(","):
        for method in flags.methods.split(","):
            for model in MODELS:
                if (model, method, topology) in made or not f"{model}-{method}".startswith(flags.only):
                    continue
                rows.append(row(model, method, topology))
                write(rows)
                print(", ".join(rows[-1].values()), flush=True)


if __name__ == "__main__":
    main()
