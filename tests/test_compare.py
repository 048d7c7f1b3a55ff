"""The command that compares runs: on what `evaluate` wrote, and one line where that is missing or does not fit."""

import json
import pathlib

import numpy as np
import pytest

from prompt_tuning import compare, evaluate, uncertainty
from tests import tiny_run


def written(folder: pathlib.Path, right: np.ndarray, *, inputs: str = "question", name: str = "best-validation") -> str:
    folder.mkdir()
    rows = [
        {"task": "t", "inputs": f"{inputs} {row}", "target": "yes", "choices": ["no", "yes"], "prediction": "yes" if each else "no"}
        for row, each in enumerate(right)
    ]
    (folder / f"predictions-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"evaluation-{name}.json").write_text(json.dumps({"metrics": {"t": {"accuracy": right.mean(), "f1_binary": 0.0}}}))
    return str(folder)


def test_runs_are_compared_as_the_library_does(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    right = {name: rng.random(60) < share for name, share in (("a0", 0.9), ("a1", 0.8), ("b0", 0.6), ("b1", 0.5))}
    runs = {name: written(tmp_path / name, each) for name, each in right.items()}
    command = [runs["a0"], runs["a1"], "--against", runs["b0"], runs["b1"], "--resamples=300"]
    compare.main([*command, "--json"])
    found = json.loads(capsys.readouterr().out)["t"]["accuracy"]
    examples = [{"targets_pretokenized": "yes"}] * 60
    said = {name: ["yes" if yes else "no" for yes in each] for name, each in right.items()}
    wanted = uncertainty.compare("accuracy", examples, [said["a0"], said["a1"]], [said["b0"], said["b1"]], resamples=300)
    assert found["difference"]["value"] == pytest.approx(np.mean([right["a0"], right["a1"]]) - np.mean([right["b0"], right["b1"]]))
    assert found["difference"]["low"] == wanted.difference.low > 0
    assert found["p"] == wanted.p < 0.05
    compare.main(command)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["t", "accuracy"], ["t", "f1_binary"]]


@pytest.mark.parametrize(
    ("against", "message"),
    [
        (["missing"], "evaluation-best-validation.json: no such file; run python -m prompt_tuning.evaluate --workdir="),
        (["other"], "not evaluated on the same examples of t as"),
        (["broken"], "not readable"),
        (["same", "same"], "--against: wanted as many runs as before it (1), got 2"),
        (["same", "--resamples=0"], "--resamples: wanted 1 or more, got 0"),
    ],
)
def test_what_does_not_fit_is_one_line(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], against: list[str], message: str
) -> None:
    right = np.array([True, False])
    runs = {"same": written(tmp_path / "same", right), "other": written(tmp_path / "other", right, inputs="another")}
    runs |= {"missing": str(tmp_path / "missing"), "broken": written(tmp_path / "broken", right)}
    (tmp_path / "broken" / "predictions-best-validation.jsonl").write_text("{")
    with pytest.raises(SystemExit, match="2"):
        compare.main([runs["same"], "--against", *(runs.get(name, name) for name in against)])
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error


def test_a_run_beside_itself_differs_in_nothing(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run.train_tiny(tmp_path)
    evaluate.main([f"--workdir={run}", "--split=test"])
    capsys.readouterr()
    compare.main([str(run), "--against", str(run), "--split=test", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"sentiment_review", "word_reverse"}
    for by_metric in found.values():
        assert all(each["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0} and each["p"] == 1.0 for each in by_metric.values())
