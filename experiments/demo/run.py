"""Compares five ways to use the bundled base on the same tasks: python -m experiments.demo.run --workdir=runs/demo.

(a) the frozen base, asked with instructions; (b) prompt tuning; (c) model tuning; (d) instruction tuning on the clusters that the target tasks
are not from, asked with instructions; (e) prompt tuning on (d). Every training run has the same number of steps and the same seeds, and every score
is the mean over the target tasks of the accuracy on the same test rows. (b), (c) and (e) train one model for the whole mixture of target tasks and
read rows without an instruction; (a) and (d) never train on a target task and are told it in the instruction.

Writes a run folder for each run, `results.csv` and `figure.png`; run again, it goes on where it stopped.
"""

import argparse
import collections
import csv
import dataclasses
import io
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from prompt_tuning import cli, environment
from prompt_tuning.errors import UserError

TARGETS = ("sentiment_review", "sentiment_feeling", "story_where", "giver_receiver")
HELD_OUT = ("sentiment", "comprehension", "extraction")
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
    environment.settle()
    try:
        run(pathlib.Path(flags.workdir), seeds=flags.seeds, steps=flags.steps, model=flags.model)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run(workdir: pathlib.Path, *, seeds: int, steps: int | None, model: str) -> None:
    """Runs what is not there yet, and writes the table and the figure."""
    import tqdm

    from paper_figures import demo as figure
    from prompt_tuning.files import atomic_write

    workdir.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    rows = []
    todo = [(condition, seed) for seed in range(seeds) for condition in CONDITIONS]
    with tqdm.tqdm(todo, desc="demo", unit="run", file=sys.stderr) as bar:
        for condition, seed in bar:
            bar.set_postfix_str(f"{CONDITIONS[condition]}, seed {seed}")
            rows.append(_one(workdir, condition, seed, steps=steps, model=model))
            text = io.StringIO()
            writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            atomic_write(workdir / "results.csv", text.getvalue())
    figure.draw(workdir / "results.csv", workdir / "figure.png")
    print(table(rows))
    print(f"{time.monotonic() - started:.0f} seconds; {workdir}/results.csv, {workdir}/figure.png and a folder for each run")


def _one(workdir: pathlib.Path, condition: str, seed: int, *, steps: int | None, model: str) -> dict[str, Any]:
    from prompt_tuning import evaluate, evaluation, training

    experiment = _experiment(workdir, condition, seed, steps=steps, model=model)
    folder = workdir / f"{condition}_seed{seed}"
    if condition == "frozen":
        results = {"steps": 0, "trained_parameters": 0, "seconds": 0.0, "stored_bytes": 0}
        loaded = evaluate.load(experiment, workdir=None, checkpoint="base")
    else:
        results = training.train(experiment, str(folder), label=f"{condition}, seed {seed}")
        loaded = evaluate.load(experiment, workdir=str(folder), checkpoint="best")
    scores = {}
    for domain in ("in", "out"):
        source = dataclasses.replace(_target_source(experiment), domain=domain)
        settings = dataclasses.replace(experiment.evaluation, split="test")
        vocabulary = experiment.vocabulary.load()
        tasks = evaluation.task_examples(source, vocabulary, settings)
        report = evaluation.evaluate(loaded.parts, tasks, settings=settings, lengths=loaded.lengths, vocabulary=vocabulary)
        scores[domain] = statistics.mean(report.metrics[task]["accuracy"] for task in TARGETS)
        folder.mkdir(exist_ok=True)
        _write_scores(folder, domain, report)
    return {
        "condition": condition,
        "seed": seed,
        "score": f"{scores['in']:.4f}",
        "score_out_of_domain": f"{scores['out']:.4f}",
        "steps": results["steps"],
        "trained_parameters": results["trained_parameters"],
        "seconds": f"{results['seconds']:.1f}",
        # What a task needs beyond the base: an instruction-tuned model serves all tasks, target or not.
        "stored_bytes_per_task": round(results["stored_bytes"] / len(TARGETS)),
        "tasks": " ".join(TARGETS),
        "run": folder.name,
    }


def _write_scores(folder: pathlib.Path, domain: str, report: Any) -> None:
    from prompt_tuning.run_folder import RunFolder

    RunFolder(folder).write_json(f"test-{domain}.json", {"score": report.score, "metrics": report.metrics})
    RunFolder(folder).write_rows(f"test-{domain}-predictions.jsonl", report.predictions)


def _experiment(workdir: pathlib.Path, condition: str, seed: int, *, steps: int | None, model: str) -> Any:
    method = "prompt" if condition in ("prompt", "instruction_prompt") else "full"
    instructed = condition in ("frozen", "instruction")
    files = [f"configs/models/{model}.gin", f"configs/methods/{method}.gin", "configs/data/world.gin", "configs/runs/demo.gin"]
    bindings = [f"SEED = {seed}", f"FORM = '{'instructions' if instructed else 'plain'}'"]
    if steps is not None:
        bindings.append(f"TRAIN_STEPS = {steps}")
    if condition == "instruction":
        bindings += ["TASKS = ()", f"HELD_OUT = {HELD_OUT}", "experiment.Experiment.save_base = True"]
    else:
        bindings.append(f"TASKS = {TARGETS}")
    if condition == "instruction_prompt":
        bindings.append(f"BASE_CHECKPOINT = '{workdir / f'instruction_seed{seed}' / 'base'}'")
    return cli.load_experiment(files, bindings)


def _target_source(experiment: Any) -> Any:
    return dataclasses.replace(experiment.data, task_list=TARGETS, held_out=(), clusters=(), num_test=200)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows by condition: mean and standard deviation over seeds."""
    by_condition = collections.defaultdict(list)
    for row in rows:
        by_condition[row["condition"]].append(row)
    lines = [("", "score", "out of domain", "trained", "seconds", "bytes a task")]
    for condition, found in by_condition.items():
        cells = [_spread([float(row[name]) for row in found]) for name in ("score", "score_out_of_domain")]
        seconds = statistics.mean(float(row["seconds"]) for row in found)
        numbers = (f"{found[0]['trained_parameters']:,}", f"{seconds:.0f}", f"{found[0]['stored_bytes_per_task']:,}")
        lines.append((CONDITIONS[condition], *cells, *numbers))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )


def _spread(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"


if __name__ == "__main__":
    main()
