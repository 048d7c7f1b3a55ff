"""Eight prompts in one program beside eight runs: T5 v1.1 small in float32, 100 vectors, batches of 2 examples of 128/16.

    python -m benchmarks.sweep [--quick] [--only=steps]

Writes `benchmarks/results/sweep.csv`, a line for each of:

- `steps`: one step of each of eight prompts, in one program, beside eight steps of the program of one, as `train` takes them; in one
  process, by turns of three, the first of each turn left out, medians. The losses must agree, or the benchmark stops;
- `commands`: one `python -m prompt_tuning.sweep` of eight seeds, beside eight `python -m prompt_tuning.train`, from start to end, 20 steps
  and an evaluation of 8 examples each; each side begins with an empty compilation cache, which its own processes share.

Two threads. Run it while nothing else does.
"""

import csv
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import models
from benchmarks.side_by_side import THREADS, arguments, check_losses, keep, measure, table

MODULE = "benchmarks.sweep"
RESULTS = pathlib.Path(__file__).parent / "results" / "sweep.csv"
PARTS = ("steps", "commands")
RUNS = 8


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the model, the runs and what is measured."""

    tiny: bool
    rounds: int

    @property
    def prompt_length(self) -> int:
        return 4 if self.tiny else 100

    @property
    def lengths(self) -> dict[str, int]:
        return {"input_length": 16, "target_length": 4} if self.tiny else {"input_length": 128, "target_length": 16}

    @property
    def batch_size(self) -> int:
        return 2

    @property
    def train_steps(self) -> int:
        return 2 if self.tiny else 20


def steps(sizes: Sizes, folder: pathlib.Path) -> dict[str, Any]:
    """Seconds of each turn of both sides, and the losses before the first update."""
    from prompt_tuning import environment

    environment.settle()
    import jax

    from prompt_tuning import assembly, many_runs, programs, training
    from prompt_tuning.data import features
    from prompt_tuning.data.vocabularies import Bytes
    from prompt_tuning.experiment import Experiment
    from prompt_tuning.methods.prompt import Prompt, Uniform
    from prompt_tuning.optimizers import Adafactor

    def experiment(seed: int) -> Experiment:
        return Experiment(
            model=models.our_config("t5", models.sizes("t5", tiny=sizes.tiny), dtype="float32", param_dtype="float32"),
            vocabulary=Bytes(),
            method=Prompt(length=sizes.prompt_length, initializer=Uniform()),
            data=None,
            optimizer=Adafactor(0.3, 1e-5),
            base_checkpoint=str(folder),
            batch_size=sizes.batch_size,
            seed=seed,
            **sizes.lengths,
        )

    experiments = [experiment(seed) for seed in range(RUNS)]
    builts = assembly.assemble_several(experiments)
    shape = (RUNS * sizes.batch_size, sizes.lengths["input_length"]), (RUNS * sizes.batch_size, sizes.lengths["target_length"])
    examples = [
        {"inputs": one, "targets": other} for one, other in zip(*models.tokens(models.sizes("t5", tiny=sizes.tiny), *shape), strict=True)
    ]
    batches = [features.layout(examples[run::RUNS], **sizes.lengths, prompt=experiments[run].layout) for run in range(RUNS)]
    alone = [programs.program(one, built) for one, built in zip(experiments, builts, strict=True)]
    # Without dropout the runs' programs are the same one.
    program = alone[0].step.lower(alone[0].state, alone[0].frozen, programs.abstract_batch(experiments[0], builts[0].mesh)).compile()
    take_step = many_runs.program(experiments, builts, alone)
    # Each side gives its state away with each step.
    ours = tuple(one.start(jax.tree.map(jax.numpy.copy, built.tuned)) for one, built in zip(alone, builts, strict=True))
    theirs = [one.start(built.tuned) for one, built in zip(alone, builts, strict=True)]

    def together() -> list[float]:
        nonlocal ours
        ours, metrics = take_step(ours, batches, [True] * RUNS)
        jax.block_until_ready((ours, metrics))
        return [float(one["loss"]) for one in metrics]

    def in_turn() -> list[float]:
        found = []
        for run in range(RUNS):
            theirs[run], metrics = program(theirs[run], builts[run].frozen, training.on_devices(batches[run], builts[run].mesh))
            jax.block_until_ready((theirs[run], metrics))
            found.append(float(metrics["loss"]))
        return found

    def timed(side: Callable[[], list[float]]) -> list[float]:
        # The first step after those of another size takes its memory anew, which the steps of a run do not.
        side()
        times = []
        for _ in range(2):
            start = time.monotonic()
            side()
            times.append(time.monotonic() - start)
        return times

    losses = [together(), in_turn()]
    found: dict[str, Any] = {"together": [], "in_turn": [], "losses": losses}
    for _ in range(sizes.rounds):
        found["in_turn"] += timed(in_turn)
        found["together"] += timed(together)
    return found


def write_gin(sizes: Sizes, folder: pathlib.Path) -> list[str]:
    """The flags of a run of one prompt."""
    s = models.sizes("t5", tiny=sizes.tiny)
    fields = {"d_model": s["d_model"], "d_ff": s["d_ff"], "num_heads": s["num_heads"], "d_kv": s["d_kv"], "vocab_size": s["vocab_size"]}
    fields |= dict.fromkeys(("num_encoder_layers", "num_decoder_layers"), s["layers"])
    path = folder / "model.gin"
    lines = [
        "from __gin__ import dynamic_registration",
        "from prompt_tuning import evaluation",
        "from prompt_tuning import experiment",
        "from prompt_tuning.data import vocabularies",
        "from prompt_tuning.data.tasks import world",
        "from prompt_tuning.models import t5",
        f"BASE_CHECKPOINT = {str(folder)!r}",
        "experiment.Experiment.model = @t5.T5Config()",
        *(f"t5.T5Config.{name} = {value}" for name, value in fields.items()),
        "experiment.Experiment.vocabulary = @vocabularies.Bytes()",
        f"vocabularies.Bytes.extra_ids = {s['vocab_size'] - 259}",
        "experiment.Experiment.data = @world.World()",
        "world.World.task_list = ('sentiment_review',)",
        "world.World.num_train = 400",
        "evaluation.Evaluation.batch_size = 8",
        "evaluation.Evaluation.max_examples = 8",
    ]
    path.write_text("\n".join(lines) + "\n")
    settings = {"TRAIN_STEPS": sizes.train_steps, "BATCH_SIZE": sizes.batch_size, "PROMPT_LENGTH": sizes.prompt_length, "EVAL_STEPS": 0}
    settings |= {"CHECKPOINT_STEPS": 0} | {name.upper(): value for name, value in sizes.lengths.items()}
    return [f"--gin_file={path}", "--gin_file=configs/methods/prompt.gin", *(f"--gin.{name}={value}" for name, value in settings.items())]


def commands(sizes: Sizes, folder: pathlib.Path, *, together: bool) -> dict[str, Any]:
    """Seconds of the commands of one side, all of them."""
    flags = write_gin(sizes, folder)
    seeds = range(RUNS)
    if together:
        wanted = [["prompt_tuning.sweep", *flags, f"--vary=SEED={','.join(map(str, seeds))}", f"--workdir={folder / 'sweep'}"]]
    else:
        wanted = [["prompt_tuning.train", *flags, f"--gin.SEED={seed}", f"--workdir={folder / 'runs' / str(seed)}"] for seed in seeds]
    start = time.monotonic()
    for one in wanted:
        done = subprocess.run([sys.executable, "-m", *one], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(one)} failed:\n{done.stderr[-4000:]}")
    seconds = time.monotonic() - start
    results = folder / "sweep" if together else folder / "runs"
    scores = [json.loads(path.read_text())["final"]["score"] for path in sorted(results.glob("*/results.json"))]
    assert len(scores) == RUNS, "every run left its results"
    return {"seconds": seconds}


def main() -> None:
    flags = arguments(__doc__, RESULTS, only="steps or commands").parse_args()
    if flags.worker is not None:
        what = dict(flags.worker)
        part = what.pop("part")
        together = what.pop("together", False)
        sizes = Sizes(**what)
        print(json.dumps(steps(sizes, flags.folder) if part == "steps" else commands(sizes, flags.folder, together=together)))
        return
    sizes = Sizes(tiny=flags.quick, rounds=1 if flags.quick else flags.rounds)
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        models.write("t5", models.sizes("t5", tiny=sizes.tiny), folder)
        given = dataclasses.asdict(sizes)
        if "steps".startswith(flags.only):
            found = measure(MODULE, {"part": "steps", **given}, folder)
            for one, other in zip(*found["losses"], strict=True):
                check_losses([one, other], dtype="float32", what="one run of eight")
            rows.append(row("steps", sizes, found["in_turn"], found["together"]))
        if "commands".startswith(flags.only):
            apart = measure(MODULE, {"part": "commands", "together": False, **given}, folder)["seconds"]
            at_once = measure(MODULE, {"part": "commands", "together": True, **given}, folder)["seconds"]
            rows.append(row("commands", sizes, [apart], [at_once]))
    print(table(rows))
    output = flags.output or (None if flags.quick else RESULTS)
    if output is not None:
        keep(joined(output, rows), output)


def row(work: str, sizes: Sizes, in_turn: list[float], together: list[float]) -> dict[str, object]:
    """A line of the results."""
    lengths = f"{sizes.batch_size}x{sizes.lengths['input_length']}/{sizes.lengths['target_length']}"
    alone, at_once = statistics.median(in_turn), statistics.median(together)
    return {
        "work": work,
        "runs": RUNS,
        "tokens": lengths,
        "threads": THREADS,
        "steps": 1 if work == "steps" else sizes.train_steps,
        "seconds_in_turn": round(alone, 3),
        "seconds_together": round(at_once, 3),
        "ratio": round(at_once / alone, 3),
        "repeats": len(in_turn),
    }


def joined(path: pathlib.Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows, and those of the file that are of other work."""
    old: list[dict[str, object]] = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            old = [dict(one) for one in csv.DictReader(file)]
    ours = {one["work"] for one in rows}
    return sorted([*(one for one in old if one["work"] not in ours), *rows], key=lambda one: PARTS.index(str(one["work"])))


if __name__ == "__main__":
    main()
