"""Summaries of evaluations over many tasks: Tk-Instruct's by category, FLAN's and T0's over templates, on numbers worked out by hand."""

import json
import pathlib

import numpy as np
import pytest

from prompt_tuning import summarise, uncertainty

# Of each template, the predictions for four questions whose answer is "yes", on the split and on the dev split.
TEMPLATES = {
    "plain": ("yyyn", "ynnn"),
    "asks": ("ynnn", "yyyn"),
    "so, is it?": ("yynn", "yyyn"),
    "odd": ("yyyy", "nnnn"),
    "bad": ("nnnn", "ynnn"),
}
SAID = {"y": "yes", "n": "no"}


def write(folder: pathlib.Path, tasks: dict[str, list[dict]], metrics: tuple[str, ...], name: str = "best-validation") -> str:
    """An evaluation as the command writes it."""
    folder.mkdir(exist_ok=True)
    rows = [{"task": task, "inputs": f"question {number}"} | row for task, own in tasks.items() for number, row in enumerate(own)]
    (folder / f"predictions-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"evaluation-{name}.json").write_text(json.dumps({"metrics": {task: dict.fromkeys(metrics, 0.0) for task in tasks}}))
    return str(folder)


def templates(folder: pathlib.Path) -> str:
    for place, name in enumerate(("best-test", "best-validation")):
        tasks = {
            f"rte/{template}": [{"target": "yes", "prediction": SAID[each]} for each in said[place]] for template, said in TEMPLATES.items()
        }
        write(folder, tasks, ("accuracy",), name)
    return str(folder)


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_category_has_its_official_metric(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    entailment = [{"group": "Textual Entailment", "target": "the yes", "prediction": said} for said in ("The yes.", "yes")]
    analogy = [{"group": "Word Analogy", "target": "cat", "references": ["cat", "cats"], "prediction": "cats"}]
    titles = [{"group": "Title Generation", "target": "running cats", "prediction": said} for said in ("runs cat", "a dog", "cats")]
    run = write(tmp_path / "run", {"t1": entailment[:1], "t2": entailment[1:], "t3": analogy, "t4": titles}, ("rougeL", "tk_exact_match"))
    summarise.main([run, "--by=category", "--resamples=20", "--json"])
    found = [(line["what"], line["count"], line["metric"], pytest.approx(line["value"]["value"])) for line in printed(capsys)]
    # ROUGE-L: "the yes" and "yes" share one word of two and one; "running cats" and "cats" too; "runs cat" has its target's stems.
    assert found == [
        ("all", 4, "rougeL", (1 + 2 / 3 + 1 + 1 + 0 + 2 / 3) / 6),
        ("all", 4, "tk_exact_match", 2 / 6),
        ("Textual Entailment", 2, "tk_exact_match", 1 / 2),
        ("Title Generation", 1, "rougeL", (1 + 0 + 2 / 3) / 3),
        ("Word Analogy", 1, "tk_exact_match", 1.0),
    ]
    summarise.main([run, "--by=category", "--resamples=20"])
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == ["categories", "all", "4", "rougeL"]


def test_the_spread_over_templates(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    summarise.main([templates(tmp_path / "run"), "--by=template", "--split=test", "--dev=validation", "--resamples=200", "--json"])
    lines = printed(capsys)
    # Scores are 0.75, 0.25, 0.5, 1 and 0.
    assert {line["what"]: line["value"]["value"] for line in lines} == {
        "mean": 0.5,
        "lowest": 0.0,
        "lower quartile": 0.25,
        "median": 0.5,
        "upper quartile": 0.75,
        "best": 1.0,
        "best on dev": 0.25,  # "asks" and "so, is it?" are best on dev; the first is taken.
    }
    assert {(line["of"], line["count"], line["metric"]) for line in lines} == {("rte", 5, "accuracy")}
    assert [line["template"] for line in lines] == [None] * 6 + ["asks"]
    assert all(line["value"]["low"] <= line["value"]["value"] <= line["value"]["high"] for line in lines)
    examples = [{"targets_pretokenized": "yes"}] * 4
    theirs = uncertainty.interval("accuracy", examples, [[SAID[each] for each in TEMPLATES["asks"][0]]], resamples=200)
    assert lines[-1]["value"] == {"value": theirs.value, "low": theirs.low, "high": theirs.high}


def test_one_template_has_no_spread(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"target": "yes", "prediction": "yes" if right else "no"} for right in np.arange(10) % 2]
    summarise.main([write(tmp_path / "run", {"a/b": rows, "c": rows}, ("accuracy",)), "--by=template", "--resamples=20"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert {line[0] for line in lines} == {"a"}
    assert {line[-4] for line in lines} == {"0.5000"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["run", "--by=category"], "task rte/plain is of 0 categories, wanted one"),
        (["mixed", "--by=category"], "task t is of 2 categories, wanted one"),
        (["mixed", "--by=template"], "no task is called TASK/TEMPLATE"),
        (["run", "--by=template", "--split=train"], "evaluation-best-train.json: no such file"),
        (["run", "--by=template", "--dev=other"], "rte/plain was not evaluated on the dev split"),
        (["run", "--by=template", "--resamples=0"], "--resamples: wanted 1 or more, got 0"),
        (["run", "--by=category", "--dev=test"], "--dev: wanted with --by=template"),
        (["loss", "--by=template"], "t/a was judged by its loss alone"),
    ],
)
def test_mistakes_are_one_line_and_status_2(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    templates(tmp_path / "run")
    write(tmp_path / "run", {"other/a": [{"target": "yes", "prediction": "yes"}]}, ("accuracy",), "best-other")
    write(tmp_path / "mixed", {"t": [{"group": group, "target": "a", "prediction": "a"} for group in "xy"]}, ("rougeL",))
    write(tmp_path / "loss", {"t/a": [{"target": "a", "log_likelihood": -1.0}]}, ("loss",))
    with pytest.raises(SystemExit) as stop:
        summarise.main([str(tmp_path / flags[0]), *flags[1:]])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error, error
