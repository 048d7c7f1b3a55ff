"""Evaluates a run, or a base model as it is, on a split of its tasks.

  python -m prompt_tuning.evaluate --workdir=runs/sst2 --split=test
  python -m prompt_tuning.evaluate --gin_file=configs/models/t5_mini.gin --gin_file=configs/data/world.gin

With --workdir it takes the run's best checkpoint (or --checkpoint=latest), with the run's own configuration where no gin file is given;
without, or with --checkpoint=base, the base model without any tuning. Prints a table, or one JSON object with --json, and writes
`evaluation-CHECKPOINT-SPLIT.json` and `predictions-CHECKPOINT-SPLIT.jsonl` into the work folder; nothing that training wrote is changed.
Values come with 95% bootstrap intervals over the examples (`prompt_tuning/uncertainty.py`); `prompt_tuning.compare` compares runs.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prompt_tuning import cli, processes, text_tables
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    from prompt_tuning import assembly, checkpoints
    from prompt_tuning.evaluation import Lengths, Parts, Report
    from prompt_tuning.experiment import Experiment

# What running a model does not need and training does.
FALLBACKS = (
    "from prompt_tuning import optimizers",
    "from prompt_tuning.methods import full",
    "experiment.Experiment.method = @full.Full()",
    "experiment.Experiment.optimizer = @optimizers.AdamW()",
)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model to run.

    Attributes:
      parts: graph definition, trained and frozen arrays.
      lengths: of inputs, targets and prompt.
      checkpoint: `best`, `latest`, `adapter` or `base`.
      step: of the checkpoint; None for an adapter and the base.
    """

    parts: "Parts"
    lengths: "Lengths"
    checkpoint: str
    step: int | None


def main(argv: list[str] | None = None) -> None:
    """The command."""
    cli.main(_run, __doc__, extra_flags=_flags, fallbacks=FALLBACKS, argv=argv)


def add_checkpoint_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --checkpoint."""
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest", "base"),
        help="the run's best checkpoint on the dev split, its latest, or the untuned base (default: best, or base without --workdir)",
    )


def load(experiment: "Experiment", *, workdir: str | None, checkpoint: str | None) -> Loaded:
    """The model of a run's checkpoint, the base with a given adapter (`FromPeft`), or the base alone.

    Raises UserError where there is no such checkpoint, where the run was made with another model, vocabulary, method or base, and
    for a base that would be random.
    """
    from prompt_tuning import assembly
    from prompt_tuning.evaluation import Lengths
    from prompt_tuning.methods.from_peft import FromPeft
    from prompt_tuning.methods.full import Full

    if checkpoint is None and workdir is None:
        checkpoint = "adapter" if isinstance(experiment.method, FromPeft) else "base"
    checkpoint = checkpoint or "best"
    if checkpoint in ("base", "adapter"):
        if experiment.base_checkpoint is None and not experiment.allow_random_base:
            raise UserError(
                "no base checkpoint: the model would be random; set --gin.BASE_CHECKPOINT=\"'DIR'\", "
                "or give --workdir=DIR to take a run's weights"
            )
        if checkpoint == "base":
            experiment = dataclasses.replace(experiment, method=Full())
    elif workdir is None:
        raise UserError(f"--checkpoint={checkpoint} is a run's; add --workdir=DIR")
    else:
        _check_same_run(experiment, pathlib.Path(workdir))
    assembly.check_vocabulary(experiment)
    built = assembly.assemble(experiment)
    lengths = Lengths(experiment.input_length, experiment.target_length, experiment.layout)
    if checkpoint in ("base", "adapter"):
        return Loaded((built.graphdef, built.tuned, built.frozen), lengths, checkpoint, None)
    restored = _restored(built, str(workdir), checkpoint)
    return Loaded((built.graphdef, restored.trainable, built.frozen), lengths, checkpoint, restored.step)


def load_tasks(experiment: "Experiment", workdirs: Sequence[str], *, checkpoint: str | None) -> Loaded:
    """The models of several runs on one base as one: an example's `task` is the place of its run.

    The runs may differ in data, seed, length of training and first values, in nothing else that makes the model.
    Raises UserError as `load`, and for what several runs cannot share.
    """
    from prompt_tuning import assembly, mixed_tasks
    from prompt_tuning.evaluation import Lengths
    from prompt_tuning.models.layers import Tunable

    if checkpoint == "base":
        raise UserError("--checkpoint=base with --task: the base has no tasks; leave out one of the two")
    if experiment.method.trainable is not Tunable:
        raise UserError(
            f"--task: {type(experiment.method).__name__} trains the base's own weights, of which there is one copy; wanted runs of methods "
            "that add theirs"
        )
    for workdir in workdirs:
        _check_same_run(experiment, pathlib.Path(workdir), first_values=False)
    assembly.check_vocabulary(experiment)
    built = assembly.assemble(experiment)
    tuned = mixed_tasks.stacked([_restored(built, workdir, checkpoint or "best").trainable for workdir in workdirs])
    lengths = Lengths(experiment.input_length, experiment.target_length, experiment.layout)
    return Loaded((mixed_tasks.Mixed(built.graphdef), tuned, built.frozen), lengths, checkpoint or "best", None)


def _restored(built: "assembly.Assembly", workdir: str, checkpoint: str) -> "checkpoints.Restored":
    from prompt_tuning import checkpoints

    folder = pathlib.Path(workdir) / "checkpoints"
    with checkpoints.Checkpoints(folder, base=built.base, writable=False) as saved:
        restored = saved.restore_best(built.tuned) if checkpoint == "best" else saved.restore_latest(built.tuned)
    if restored is None:
        raise UserError(f"{folder} holds no checkpoint yet; wait for training to save one")
    return restored


def _check_same_run(experiment: "Experiment", workdir: pathlib.Path, *, first_values: bool = True) -> None:
    """Raises UserError unless the run's model is the experiment's; `first_values` says whether it must have begun alike."""
    from prompt_tuning.experiment import resolved
    from prompt_tuning.run_folder import first_difference

    described = workdir / "experiment.json"
    if not described.is_file():
        raise UserError(f"--workdir {workdir}: holds no run (no experiment.json); wanted a folder that training wrote")
    try:
        held = json.loads(described.read_text(encoding="utf-8"))["experiment"]
        parts = {name: held[name] for name in ("model", "vocabulary", "method")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{described}: not readable as the description of a run ({error})") from error
    wanted = {name: resolved(getattr(experiment, name)) for name in parts}
    if not first_values:
        parts, wanted = _without(parts, "initializer"), _without(wanted, "initializer")
    if difference := first_difference(parts, wanted):
        where, was, got = difference
        raise UserError(
            f"--workdir {workdir} holds another run: {where} was {was!r} there, got {got!r}; leave out --gin_file to take the run's own"
        )


def _without(settings: Any, name: str) -> Any:
    """Resolved settings without all fields of a name."""
    if isinstance(settings, dict):
        return {key: _without(value, name) for key, value in settings.items() if key != name}
    return [_without(value, name) for value in settings] if isinstance(settings, list) else settings


def add_report_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --split and --json."""
    parser.add_argument("--split", help="train, validation or test (default: the configuration's, validation)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")


def _flags(parser: argparse.ArgumentParser) -> None:
    add_checkpoint_flag(parser)
    add_report_flags(parser)
    parser.add_argument("--resamples", type=int, default=1000, help="of the intervals; 0 leaves them out (default 1000)")
    processes.add_flags(parser)


def _run(experiment: "Experiment", flags: argparse.Namespace) -> None:
    processes.join(flags)
    with processes.only_first_speaks():
        _evaluate(experiment, flags)


def _evaluate(experiment: "Experiment", flags: argparse.Namespace) -> None:
    from prompt_tuning import evaluation
    from prompt_tuning.run_folder import RunFolder

    settings = dataclasses.replace(experiment.evaluation, **({"split": flags.split} if flags.split else {}))
    vocabulary = experiment.vocabulary.load()
    lengths = evaluation.Lengths(experiment.input_length, experiment.target_length)
    source = experiment.evaluation_data or experiment.data
    tasks = evaluation.task_examples(source, vocabulary, settings=settings, lengths=lengths, trained_on=experiment.data)
    loaded = load(experiment, workdir=flags.workdir, checkpoint=flags.checkpoint)
    started = time.monotonic()
    report = evaluation.evaluate(loaded.parts, tasks, settings=settings, lengths=loaded.lengths, vocabulary=vocabulary)
    result: dict[str, Any] = {
        "checkpoint": loaded.checkpoint,
        "step": loaded.step,
        "split": settings.split,
        "score": report.score,
        "metrics": report.metrics,
        "intervals": _intervals(report, resamples=flags.resamples),
        "examples": {task.name: len(task.examples) for task in tasks},
        "seconds": round(time.monotonic() - started, 3),
    }
    print(json.dumps(result) if flags.json else table(result))
    if flags.workdir and processes.is_first():
        folder = RunFolder(flags.workdir)
        folder.path.mkdir(parents=True, exist_ok=True)
        name = f"{loaded.checkpoint}-{settings.split}"
        folder.write_rows(f"predictions-{name}.jsonl", report.predictions)
        folder.write_json(f"evaluation-{name}.json", result)
        print(f"wrote {folder.path}/evaluation-{name}.json and predictions-{name}.jsonl", file=sys.stderr)


def _intervals(report: "Report", *, resamples: int) -> dict[str, dict[str, list[float]]]:
    """The bounds of each task's metrics; a loss has none."""
    from prompt_tuning import uncertainty

    found: dict[str, dict[str, list[float]]] = {}
    for task, values in report.metrics.items() if resamples > 0 else ():
        rows = [row for row in report.predictions if row["task"] == task]
        if all("prediction" in row for row in rows):
            examples, runs = uncertainty.as_examples(rows), [[row["prediction"] for row in rows]]
            bounds = {name: uncertainty.interval(name, examples, runs, resamples=resamples) for name in values}
            found[task] = {name: [each.low, each.high] for name, each in bounds.items()}
    return found


def table(result: dict[str, Any]) -> str:
    """A result as text: a line a task and metric, then the score."""
    lines = [("task", "examples", "metric", "value", "95% interval")]
    for task, values in result["metrics"].items():
        for metric, value in values.items():
            bounds = result["intervals"].get(task, {}).get(metric)
            shown = "" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
            lines.append((task, str(result["examples"][task]), metric, f"{value:.4f}", shown))
    what = result["checkpoint"] if result["step"] is None else f"{result['checkpoint']}, step {result['step']}"
    lines.append((f"score ({what}, {result['split']})", str(sum(result["examples"].values())), "", f"{result['score']:.4f}", ""))
    return text_tables.aligned(lines, "lrlrl")


if __name__ == "__main__":
    main()
