"""The `evaluate` command: what it measures is what training measured, and it changes nothing that training wrote."""

import hashlib
import json

import pytest

from prompt_tuning import evaluate
from tests import tiny_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run.train_tiny(tmp_path_factory.mktemp("evaluate"))


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_checkpoint_scores_what_training_measured(run, capsys):
    evaluate.main([f"--workdir={run}", "--json"])
    found = json.loads(capsys.readouterr().out)
    best = json.loads((run / "results.json").read_text())["best"]
    assert (found["checkpoint"], found["step"], found["split"]) == ("best", best["step"], "validation")
    assert (found["score"], found["metrics"]) == (best["score"], best["metrics"])
    assert found["examples"] == {"sentiment_review": 4, "word_reverse": 4}
    for task, values in found["metrics"].items():
        bounds = found["intervals"][task]
        assert all(0 <= bounds[name][0] <= value <= bounds[name][1] <= 1 for name, value in values.items())
    assert rows(run / "predictions-best-validation.jsonl") == rows(run / "predictions.jsonl")
    assert json.loads((run / "evaluation-best-validation.json").read_text()) == found


def test_latest_checkpoint_and_test_split_can_be_chosen_and_a_table_is_printed(run, capsys):
    evaluate.main([f"--workdir={run}", "--checkpoint=latest", "--split=test"])
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["task", "examples", "metric", "value", "95%", "interval"]
    assert table[-1].startswith("score (latest, step 2, test)")
    assert len(rows(run / "predictions-latest-test.jsonl")) == 6


def test_the_base_is_evaluated_without_the_prompt(run, tmp_path, capsys):
    files = tiny_run.write_gin(tmp_path)
    evaluate.main([f"--gin_file={files['model']}", f"--gin_file={files['data']}", "--json"])
    alone = json.loads(capsys.readouterr().out)
    assert (alone["checkpoint"], alone["step"]) == ("base", None)
    evaluate.main([f"--workdir={run}", "--checkpoint=base", "--json", "--gin.INPUT_LENGTH=128", "--gin.TARGET_LENGTH=32"])
    of_run = json.loads(capsys.readouterr().out)
    assert (alone["score"], alone["metrics"]) == (of_run["score"], of_run["metrics"])


def test_nothing_that_training_wrote_is_changed(run):
    def digests():
        files = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(("evaluation-", "predictions-"))]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = digests()
    evaluate.main([f"--workdir={run}", "--json"])
    assert digests() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir={run}", "--split=dev"], "dev"),
        (["--workdir={run}/nowhere", "{model}", "{data}"], "holds no run"),
        (["--workdir={run}", "{model}", "{data}"], "holds another run: method"),
        (["--checkpoint=best", "{model}", "{data}"], "add --workdir=DIR"),
        (["{model}", "{data}", "--gin.experiment.Experiment.allow_random_base=False"], "the model would be random"),
        (["--workdir={run}", "--gin.SEED=1"], "base"),
    ],
)
def test_mistakes_are_one_line_and_status_2(run, tmp_path, capsys, flags, message):
    files = tiny_run.write_gin(tmp_path)
    names = {"run": run, "model": f"--gin_file={files['model']}", "data": f"--gin_file={files['data']}"}
    with pytest.raises(SystemExit) as stop:
        evaluate.main([flag.format(**names) for flag in flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error, error
