"""Frozen, prompt-tuned and model-tuned bundled T5 on real SST-2 and CommitmentBank, read through `configs/data/files.gin`.

python -m experiments.real_data.run --data=DIR --workdir=runs/real_data --output=experiments/real_data/results.csv

DIR holds `text_classification/sst2/{train,dev,test}.txt` (lines of a label and a sentence) and `superglue/CB/{train,dev}.json` (arrays of
`sentence` and `label`). The bundled base has read nothing but the prose of its own small world: this shows that the job runs on real files,
and what so small a base is worth there, not what prompt tuning is worth. CB has no labelled test file: it is tuned without looking at `dev`
(no best checkpoint is chosen) and scored on it.
"""

import argparse
import collections
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from experiments import scoring
from prompt_tuning import cli, environment, text_tables
from prompt_tuning.errors import UserError, reported
from prompt_tuning.files import write_csv

COLUMNS = ("data", "condition", "seed", "accuracy", "f1_macro", "majority", "bag_of_words", "steps", "trained_parameters", "seconds", "run")
CONDITIONS = ("frozen", "prompt", "full")
_INPUT_LENGTHS = {"sst2": 96, "cb": 192}
CHOICES = {"sst2": ("negative", "positive"), "cb": ("contradiction", "entailment", "neutral")}


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=pathlib.Path, help="the folder of the real files")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="the folder of the runs")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="the CSV to write")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run (default 300)")
    parser.add_argument("--model", default="t5_mini", help="the base: a file in configs/models (default t5_mini)")
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    with reported():
        run(flags)


def run(flags: argparse.Namespace) -> None:
    """Runs what is not there yet; the results file grows with each run."""
    import tqdm

    files = {"sst2": _sst2(flags.data, flags.workdir), "cb": _cb(flags.data)}
    rows: list[dict[str, Any]] = []
    seeds = {condition: range(flags.seeds if condition != "frozen" else 1) for condition in CONDITIONS}
    todo = [(data, condition, seed) for data in files for condition in CONDITIONS for seed in seeds[condition]]
    with tqdm.tqdm(todo, desc="real data", unit="run") as bar:
        for data, condition, seed in bar:
            rows.append(_one(flags, data, files[data], condition, seed))
            write_csv(flags.output, rows, COLUMNS)
    print(table(rows))


def _sst2(data: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """Bindings for SST-2, whose lines `0 a sentence` are written as TSV with a header."""
    workdir.mkdir(parents=True, exist_ok=True)
    paths = []
    for split in ("train", "dev", "test"):
        source = data / "text_classification" / "sst2" / f"{split}.txt"
        if not source.is_file():
            raise UserError(f"--data: no {source}; wanted the folder described in --help")
        lines = source.read_text(encoding="utf-8").splitlines()
        target = workdir / f"sst2_{split}.tsv"
        rows = [line.replace(" ", "\t", 1) for line in lines if line.strip()]
        target.write_text("\n".join(["label\tsentence", *rows]) + "\n", encoding="utf-8")
        paths.append(str(target))
    return _bindings(paths, "sst2", "sst2 sentence: {sentence}")


def _cb(data: pathlib.Path) -> list[str]:
    folder = data / "superglue" / "CB"
    if not (folder / "train.json").is_file():
        raise UserError(f"--data: no {folder / 'train.json'}; wanted the folder described in --help")
    paths = [str(folder / "train.json"), str(folder / "dev.json"), str(folder / "dev.json")]
    return [*_bindings(paths, "cb", "cb {sentence}"), "EVAL_STEPS = 0"]


def _bindings(paths: Sequence[str], data: str, template: str) -> list[str]:
    names = ("TRAIN_FILES", "VALIDATION_FILES", "TEST_FILES")
    return [
        *(f"{name} = {path!r}" for name, path in zip(names, paths, strict=True)),
        "INPUT_COLUMN = 'sentence'",
        "TARGET_COLUMN = 'label'",
        f"ANSWER_CHOICES = {CHOICES[data]}",
        f"TEMPLATE = {template!r}",
    ]


def _one(flags: argparse.Namespace, data: str, bindings: Sequence[str], condition: str, seed: int) -> dict[str, Any]:
    from prompt_tuning import training

    method = "prompt" if condition == "prompt" else "full"
    files = [f"configs/models/{flags.model}.gin", f"configs/methods/{method}.gin", "configs/data/files.gin"]
    sizes = ["BATCH_SIZE = 16", "TARGET_LENGTH = 16", "PROMPT_LENGTH = 20", "DROPOUT_RATE = 0.0", f"INPUT_LENGTH = {_INPUT_LENGTHS[data]}"]
    steps = [f"SEED = {seed}", f"TRAIN_STEPS = {flags.steps}", "EVAL_STEPS = 100", "CHECKPOINT_STEPS = 0"]
    experiment = cli.load_experiment(files, [*sizes, *steps, *bindings])
    folder = flags.workdir / f"{data}_{condition}_seed{seed}"
    results: dict[str, Any] = {"steps": 0, "trained_parameters": 0, "seconds": 0.0}
    if condition != "frozen":
        results = training.train(experiment, str(folder), label=f"{data}, {condition}, seed {seed}")
    metrics = scoring.test_scores(experiment, folder, {"test": experiment.data}, trained=condition != "frozen")
    (scores,) = metrics["test"].values()
    majority, bag = _baselines(experiment)
    return {
        "data": data,
        "condition": condition,
        "seed": seed,
        "accuracy": f"{scores['accuracy']:.4f}",
        "f1_macro": f"{scores['f1_macro']:.4f}",
        "majority": f"{majority:.4f}",
        "bag_of_words": f"{bag:.4f}",
        "steps": results["steps"],
        "trained_parameters": results["trained_parameters"],
        "seconds": f"{results['seconds']:.1f}",
        "run": folder.name,
    }


def _baselines(experiment: Any) -> tuple[float, float]:
    from experiments.bundled_base.run import fitted_baselines
    from prompt_tuning.data import mixtures

    (task,) = experiment.data.tasks(experiment.vocabulary.load())
    split = {name: mixtures.evaluation_examples(task, name) for name in ("train", "test")}
    texts = {name: [example["inputs_pretokenized"] for example in found] for name, found in split.items()}
    labels = {name: [example["targets_pretokenized"] for example in found] for name, found in split.items()}
    return fitted_baselines(texts, labels)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a data set and condition: mean and standard deviation over seeds."""
    found = collections.defaultdict(list)
    for row in rows:
        found[row["data"], row["condition"]].append(row)
    lines = [("", "accuracy", "macro F1", "majority", "bag of words", "trained", "seconds")]
    for (data, condition), group in found.items():
        cells = [scoring.spread([float(row[name]) for row in group]) for name in ("accuracy", "f1_macro")]
        baselines = [f"{float(group[0][name]):.3f}" for name in ("majority", "bag_of_words")]
        seconds = statistics.mean(float(row["seconds"]) for row in group)
        lines.append((f"{data}, {condition}", *cells, *baselines, f"{int(group[0]['trained_parameters']):,}", f"{seconds:.0f}"))
    return text_tables.aligned(lines, "lr")


if __name__ == "__main__":
    main()
