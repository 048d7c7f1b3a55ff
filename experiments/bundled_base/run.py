"""Prompt tuning on the bundled base beside the majority guess and a bag of words, for every classification task of the world.

python -m experiments.bundled_base.run --workdir=runs/bundled_base --output=experiments/bundled_base/results.csv

Each task gets its own prompt, tuned on its plain training rows; the bag of words (scikit-learn: unigram counts, logistic regression) is
fitted on the same training rows, and both are scored on the same test rows. For tasks whose choices differ from row to row the bag of words
predicts the place of the answer among the choices. The majority guess is the best constant one: the label or place that is most frequent
among the test rows themselves, so that a prompt that always says one thing beats nobody. A finished run is not run again.
"""

import argparse
import collections
import dataclasses
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from experiments import scoring
from prompt_tuning import cli, environment, text_tables
from prompt_tuning.errors import reported
from prompt_tuning.files import write_csv

COLUMNS = ("task", "cluster", "seed", "majority", "bag_of_words", "prompt", "prompt_out_of_domain", "choices", "steps", "seconds")


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="the folder of the runs")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="the CSV to write")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run (default 300)")
    parser.add_argument("--model", default="t5_mini", help="the base: a file in configs/models (default t5_mini)")
    parser.add_argument("--base", help="another checkpoint of that base")
    parser.add_argument("--tasks", nargs="*", help="only these tasks")
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    with reported():
        run(flags)


def run(flags: argparse.Namespace) -> None:
    """Runs what is not there yet; the results file grows with each run."""
    import tqdm

    from prompt_tuning.data.world import catalogue

    tasks = [task for task in catalogue.all_tasks().values() if task.is_classification and (not flags.tasks or task.name in flags.tasks)]
    rows: list[dict[str, Any]] = []
    with tqdm.tqdm([(seed, task) for seed in range(flags.seeds) for task in tasks], desc="bundled base", unit="run") as bar:
        for seed, task in bar:
            bar.set_postfix_str(f"{task.name}, seed {seed}")
            rows.append(_one(flags, task, seed))
            write_csv(flags.output, rows, COLUMNS)
    print(table(rows))


def _one(flags: argparse.Namespace, task: Any, seed: int) -> dict[str, Any]:
    from prompt_tuning import training

    files = [f"configs/models/{flags.model}.gin", "configs/methods/prompt.gin", "configs/data/world.gin", "configs/runs/demo.gin"]
    bindings = [f"SEED = {seed}", f"TASKS = ('{task.name}',)", f"TRAIN_STEPS = {flags.steps}", f"EVAL_STEPS = {max(1, flags.steps // 3)}"]
    if flags.base:
        bindings.append(f"BASE_CHECKPOINT = '{flags.base}'")
    experiment = cli.load_experiment(files, bindings)
    experiment = dataclasses.replace(experiment, input_length=_input_length(task, experiment))
    folder = flags.workdir / f"{task.name}_seed{seed}"
    results = training.train(experiment, str(folder), label=f"{task.name}, seed {seed}")
    sources = {domain: dataclasses.replace(experiment.data, domain=domain) for domain in ("in", "out")}
    metrics = scoring.test_scores(experiment, folder, sources, trained=True)
    scores = {domain: metrics[domain][task.name]["accuracy"] for domain in sources}
    majority, bag = baselines(task, experiment.data)
    return {
        "task": task.name,
        "cluster": task.cluster,
        "seed": seed,
        "majority": f"{majority:.4f}",
        "bag_of_words": f"{bag:.4f}",
        "prompt": f"{scores['in']:.4f}",
        "prompt_out_of_domain": f"{scores['out']:.4f}",
        "choices": len(task.plain.answer_choices),
        "steps": results["steps"],
        "seconds": f"{results['seconds']:.1f}",
    }


def _input_length(task: Any, experiment: Any) -> int:
    """What holds the task's rows, in steps of 16 tokens, so that few programs are compiled."""
    from prompt_tuning.data.tasks.world import text_rows

    vocabulary = experiment.vocabulary.load()
    rows = text_rows(task, dataclasses.replace(experiment.data, num_train=300), "train")
    longest = max(len(vocabulary.encode(row.inputs)) + 1 for row in rows)
    return -(-longest // 16) * 16


def baselines(task: Any, source: Any) -> tuple[float, float]:
    """Test accuracy of the majority guess, and of the bag of words fitted on the source's training rows."""
    from prompt_tuning.data.tasks.world import text_rows

    texts, labels = {}, {}
    for split in ("train", "test"):
        found = text_rows(task, source, split)
        texts[split] = [row.inputs for row in found]
        labels[split] = [row.answer_choices.index(row.targets) for row in found]
    return fitted_baselines(texts, labels)


def fitted_baselines(texts: dict[str, list[str]], labels: dict[str, list[Any]]) -> tuple[float, float]:
    """Accuracy on `test` of its own most frequent label, and of logistic regression on unigram counts fitted on `train`."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    ((_, most),) = collections.Counter(labels["test"]).most_common(1)
    majority = most / len(labels["test"])
    model = make_pipeline(CountVectorizer(lowercase=False, token_pattern=r"\w+"), LogisticRegression(max_iter=1000))
    return majority, float(model.fit(texts["train"], labels["train"]).score(texts["test"], labels["test"]))


def beats(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a task's prompts beat the better of the two baselines by more than two standard errors of their mean, over seeds and test
    rows."""
    prompts = [float(row["prompt"]) for row in rows]
    baseline = max(float(rows[0]["majority"]), float(rows[0]["bag_of_words"]))
    mean = statistics.mean(prompts)
    of_rows = mean * (1 - mean) / 200
    of_seeds = statistics.variance(prompts) / len(prompts) if len(prompts) > 1 else 0.0
    return mean - baseline > 2 * (of_rows + of_seeds) ** 0.5


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line a task, and how many of them prompt tuning wins."""
    by_task = collections.defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    lines = [("task", "majority", "bag of words", "prompt", "out of domain", "beats both")]
    for task, found in by_task.items():
        spreads = [scoring.spread([float(row[name]) for row in found]) for name in ("prompt", "prompt_out_of_domain")]
        lines.append(
            (
                task,
                f"{float(found[0]['majority']):.3f}",
                f"{float(found[0]['bag_of_words']):.3f}",
                *spreads,
                "yes" if beats(found) else "no",
            )
        )
    won = sum(beats(found) for found in by_task.values())
    return text_tables.aligned(lines, "lr") + f"\nprompt tuning beats both on {won} of {len(by_task)} classification tasks"


if __name__ == "__main__":
    main()
