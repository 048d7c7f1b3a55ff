"""What the experiments share: test scores of a run, spreads."""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def test_scores(
    experiment: Any, folder: pathlib.Path, sources: Mapping[str, Any], *, trained: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """By name of a source, the metrics of each of its tasks on the test split, of the run's best checkpoint or of the base; also written
    into the run's folder. The model is read once."""
    from prompt_tuning import evaluate, evaluation
    from prompt_tuning.run_folder import RunFolder

    loaded = evaluate.load(experiment, workdir=str(folder) if trained else None, checkpoint="best" if trained else "base")
    settings = dataclasses.replace(experiment.evaluation, split="test", max_examples=None)
    vocabulary = experiment.vocabulary.load()
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, source in sources.items():
        tasks = evaluation.task_examples(source, vocabulary, settings=settings, lengths=loaded.lengths)
        report = evaluation.evaluate(loaded.parts, tasks, settings=settings, lengths=loaded.lengths, vocabulary=vocabulary)
        RunFolder(folder).write_json(f"test-{name}.json", {"score": report.score, "metrics": report.metrics})
        RunFolder(folder).write_rows(f"test-{name}-predictions.jsonl", report.predictions)
        found[name] = report.metrics
    return found


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, as a table shows them."""
    mean = statistics.mean(values)
    return f"{mean:.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else f"{mean:.3f}"
