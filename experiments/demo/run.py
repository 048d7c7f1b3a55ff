"""Compares five ways to use the bundled base on the same tasks: python -m experiments.demo.run --workdir=runs/demo.

(a) the frozen base, asked with instructions; (b) prompt tuning; (c) model tuning; (d) instruction tuning on the clusters that the target
tasks are not from, asked with instructions; (e) prompt tuning on (d). Every training run has the same number of steps and the same seeds,
and every score is the mean over the target tasks of the accuracy on the same test rows. (b), (c) and (e) train one model for the whole
mixture of target tasks and read rows without an instruction; (a) and (d) never train on a target task and are told it in the instruction.

Writes a run folder for each run, `results.csv` and `figure.png`; run again, it goes on where it stopped.
"""

import argparse
import collections
import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from experiments import scoring
from prompt_tuning import cli, environment, text_tables
from prompt_tuning.errors import Interrupted, reported
from prompt_tuning.files import write_csv

TARGETS = ("fact_town_choice", "fact_job_choice", "arithmetic_more")
HELD_OUT = ("facts", "arithmetic")
# Instructions and the stories of other clusters take more tokens than the plain rows of the target tasks.
_INSTRUCTION_LENGTH = 72
CONDITIONS = {
    "frozen": "(a) frozen, instructions",
    "prompt": "(b) prompt tuning",
    "full": "(c) model tuning",
    "instruction": "(d) instruction tuning, held-out clusters",
    "instruction_prompt": "(e) prompt tuning on (d)",
}
COLUMNS = (
    "condition", "seed", "score", "score_out_of_domain", "steps", "trained_parameters", "seconds", "stored_bytes_per_task", "tasks", "run",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", default="runs/demo", help="the folder that holds everything (default runs/demo)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--steps", type=int, help="steps of every training run (default: configs/runs/demo.gin)")
    parser.add_argument("--model", default="t5_mini", help="the bundled base: t5_mini or t5_nano (default t5_mini)")
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    try:
        with reported():
            run(pathlib.Path(flags.workdir), seeds=flags.seeds, steps=flags.steps, model=flags.model)
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(143)


def run(workdir: pathlib.Path, *, seeds: int, steps: int | None, model: str) -> None:
    """Runs what is not there yet, and writes the table and the figure."""
    import tqdm

    from paper_figures import demo as figure

    workdir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    rows = []
    todo = [(condition, seed) for seed in range(seeds) for condition in CONDITIONS]
    with tqdm.tqdm(todo, desc="demo", unit="run", file=sys.stderr) as bar:
        for condition, seed in bar:
            bar.set_postfix_str(f"{CONDITIONS[condition]}, seed {seed}")
            rows.append(_one(workdir, condition, seed, steps=steps, model=model))
            write_csv(workdir / "results.csv", rows, COLUMNS)
    figure.draw(workdir / "results.csv", workdir / "figure.png")
    print(table(rows))
    print(f"{time.monotonic() - started:.0f} seconds; {workdir}/results.csv, {workdir}/figure.png and a folder for each run")


def _one(workdir: pathlib.Path, condition: str, seed: int, *, steps: int | None, model: str) -> dict[str, Any]:
    from prompt_tuning import training

    experiment = _experiment(workdir, condition, seed, steps=steps, model=model)
    folder = workdir / f"{condition}_seed{seed}"
    trained = condition != "frozen"
    results: dict[str, Any] = {"steps": 0, "trained_parameters": 0, "seconds": 0.0, "stored_bytes": 0}
    if trained:
        results = training.train(experiment, str(folder), label=f"{condition}, seed {seed}")
    asked = dataclasses.replace(experiment.data, task_list=TARGETS, held_out=(), clusters=())
    sources = {domain: dataclasses.replace(asked, domain=domain) for domain in ("in", "out")}
    metrics = scoring.test_scores(experiment, folder, sources, trained=trained)
    scores = {domain: statistics.mean(metrics[domain][task]["accuracy"] for task in TARGETS) for domain in sources}
    return {
        "condition": condition,
        "seed": seed,
        "score": f"{scores['in']:.4f}",
        "score_out_of_domain": f"{scores['out']:.4f}",
        "steps": results["steps"],
        "trained_parameters": results["trained_parameters"],
        "seconds": f"{results['seconds']:.1f}",
        # What a target task needs beyond the base, shared out over the mixture.
        "stored_bytes_per_task": round(results["stored_bytes"] / len(TARGETS)),
        "tasks": " ".join(TARGETS),
        "run": folder.name,
    }


def _experiment(workdir: pathlib.Path, condition: str, seed: int, *, steps: int | None, model: str) -> Any:
    method = "prompt" if condition in ("prompt", "instruction_prompt") else "full"
    instructed = condition in ("frozen", "instruction")
    files = [f"configs/models/{model}.gin", f"configs/methods/{method}.gin", "configs/data/world.gin", "configs/runs/demo.gin"]
    bindings = [f"SEED = {seed}", f"FORM = '{'instructions' if instructed else 'plain'}'"]
    if steps is not None:
        bindings.append(f"TRAIN_STEPS = {steps}")
    if instructed:
        bindings.append(f"INPUT_LENGTH = {_INSTRUCTION_LENGTH}")
    if condition == "instruction":
        # Its own clusters are many: they are looked at once, at the end.
        bindings += ["EVAL_STEPS = 0", "NUM_VALIDATION = 10"]
        bindings += ["TASKS = ()", f"HELD_OUT = {HELD_OUT}", "experiment.Experiment.save_base = True"]
    else:
        bindings.append(f"TASKS = {TARGETS}")
    if condition == "instruction_prompt":
        bindings.append(f"BASE_CHECKPOINT = '{workdir / f'instruction_seed{seed}' / 'base'}'")
    return cli.load_experiment(files, bindings)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows by condition: mean and standard deviation over seeds."""
    by_condition = collections.defaultdict(list)
    for row in rows:
        by_condition[row["condition"]].append(row)
    lines = [("", "score", "out of domain", "trained", "seconds", "bytes a task")]
    for condition, found in by_condition.items():
        cells = [scoring.spread([float(row[name]) for row in found]) for name in ("score", "score_out_of_domain")]
        seconds = statistics.mean(float(row["seconds"]) for row in found)
        numbers = (f"{found[0]['trained_parameters']:,}", f"{seconds:.0f}", f"{found[0]['stored_bytes_per_task']:,}")
        lines.append((CONDITIONS[condition], *cells, *numbers))
    return text_tables.aligned(lines, "lr")


if __name__ == "__main__":
    main()
