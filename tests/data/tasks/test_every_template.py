"""Every template of a set as a task: the same rows in each, those that are held out where one is drawn, and a summary of the scores."""

import json
import pathlib

import pytest

from prompt_tuning import evaluate, summarise
from prompt_tuning.data import mixtures
from prompt_tuning.data.instructions.templated import Templated
from prompt_tuning.data.tasks.every_template import EveryTemplate
from prompt_tuning.data.tasks.instructions import Instructions
from prompt_tuning.errors import UserError
from tests import tiny_run
from tests.data.small import BYTES

CONFIGS = pathlib.Path(__file__).resolve().parents[3] / "configs/data"
TEMPLATES = """
answer_choices: "no ||| yes"
metrics: [Accuracy]
templates:
  Is it so?: "{{ text }} Is it so? ||| {{ answer }}"
  "2": "True? {{ text }} ||| {{ answer }}"
  beside: {jinja: "{{ text }} ||| {{ answer }}", metadata: {original_task: false}}
turned_around:
  write: "Say {{ answer }}. ||| {{ text }}"
"""


def write(folder: pathlib.Path, rows: int) -> tuple[str, str]:
    """A set of templates and rows for it."""
    (folder / "set.yaml").write_text(TEMPLATES)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": f"Row {n}.", "label": n % 2}) + "\n" for n in range(rows)))
    return str(folder / "set.yaml"), str(folder / "rows.jsonl")


def texts(task) -> list[str]:
    return [example["inputs_pretokenized"] for example in mixtures.evaluation_examples(task, "validation")]


def test_each_template_tells_the_rows_that_are_held_out_from_training(tmp_path: pathlib.Path) -> None:
    templates, rows = write(tmp_path, 40)
    drawn = Instructions("asked", format=Templated(templates), train_files=(rows,), validation_frac=0.3)
    every = EveryTemplate(drawn)
    assert every.task_names == ("asked/Is it so?", "asked/2")
    (task,), told = drawn.tasks(BYTES.load()), every.tasks(BYTES.load())
    assert task.name not in {each.name for each in told}
    first, second = map(texts, told)
    assert 4 < len(first) < 20
    assert all(text.endswith(" Is it so?") for text in first)
    assert second == [f"True? {text.removesuffix(' Is it so?')}" for text in first], "the same rows in the same order"
    assert {*texts(task)} == {one if one in {*texts(task)} else other for one, other in zip(first, second, strict=True)}
    assert all(tuple(each.metric_names) == ("accuracy",) for each in told)


def test_files_that_are_tasks_have_every_template_each(tmp_path: pathlib.Path) -> None:
    templates, rows = write(tmp_path, 2)
    every = EveryTemplate(Instructions("asked", format=Templated(templates, template="2"), validation_files=(rows,), by_file=True))
    assert every.task_names == ("asked_rows/Is it so?", "asked_rows/2")
    assert [texts(task)[0] for task in every.tasks(BYTES.load())] == ["Row 0. Is it so?", "True? Row 0."]


def test_other_formats_have_no_templates() -> None:
    with pytest.raises(UserError, match=r"wanted the format Templated .* got 'alpaca'"):
        EveryTemplate(Instructions(train_files=("a.jsonl",)))


def test_an_evaluation_over_templates_is_summed_up(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    templates, rows = write(tmp_path, 6)
    model = tiny_run.write_gin(tmp_path)["model"]
    settings = {"TEMPLATES": templates, "TRAIN_FILES": rows, "VALIDATION_FILES": rows}
    files = [model, CONFIGS / "templated.gin", CONFIGS / "every_template.gin"]
    flags = [*(f"--gin_file={file}" for file in files), *(f"--gin.{name}='{value}'" for name, value in settings.items())]
    run = str(tmp_path / "run")
    evaluate.main([*flags, f"--workdir={run}", "--checkpoint=base", "--resamples=20", "--json", "--gin.INPUT_LENGTH=32"])
    found = json.loads(capsys.readouterr().out)
    scores = [found["metrics"][f"instructions/{name}"]["accuracy"] for name in ("Is it so?", "2")]
    summarise.main([run, "--by=template", "--checkpoint=base", "--resamples=20", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    values = {line["what"]: line["value"]["value"] for line in lines}
    assert values["mean"] == pytest.approx(found["score"]) == pytest.approx(sum(scores) / 2)
    assert (values["lowest"], values["best"]) == (min(scores), max(scores))
