"""The demo at its smallest: the bundled nano base, a few steps, one seed."""

import csv
import json
import pathlib

import pytest

from experiments.bundled_base import run as bundled_base
from experiments.demo import run as demo
from paper_figures import demo as figure
from prompt_tuning.data.world import catalogue


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("demo")
    demo.main([f"--workdir={workdir}", "--seeds=1", "--steps=2", "--model=t5_nano"])
    return workdir


def test_every_condition_has_a_row_and_a_run_folder(folder: pathlib.Path) -> None:
    with open(folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["condition"] for row in rows] == list(demo.CONDITIONS)
    for row in rows:
        assert 0.0 <= float(row["score"]) <= 1.0
        assert (folder / row["run"] / "test-in.json").exists()
    by_condition = {row["condition"]: row for row in rows}
    assert by_condition["frozen"]["trained_parameters"] == "0"
    assert by_condition["prompt"]["trained_parameters"] == str(20 * 64)
    assert by_condition["full"]["trained_parameters"] == "459648"


def test_prompt_on_instruction_tuning_starts_from_the_instruction_tuned_base(folder: pathlib.Path) -> None:
    settings = json.loads((folder / "instruction_prompt_seed0" / "experiment.json").read_text())["experiment"]
    assert settings["base_checkpoint"] == str(folder / "instruction_seed0" / "base")


def test_instruction_tuning_sees_no_target_cluster(folder: pathlib.Path) -> None:
    settings = json.loads((folder / "instruction_seed0" / "experiment.json").read_text())["experiment"]
    held_out = set(settings["data"]["held_out"])
    assert {catalogue.all_tasks()[task].cluster for task in demo.TARGETS} <= held_out


def test_second_call_runs_nothing_again(folder: pathlib.Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/results.json")}
    demo.main([f"--workdir={folder}", "--seeds=1", "--steps=2", "--model=t5_nano"])
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/results.json")} == before


def test_figure_shows_the_numbers_of_the_csv(folder: pathlib.Path) -> None:
    rows = figure.read(folder / "results.csv")
    assert list(rows) == list(demo.CONDITIONS)
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_bag_of_words_beats_the_majority_where_words_tell_the_label() -> None:
    # A source whose label is a word of the input: the baseline must find it, or losing to it would mean nothing.
    from prompt_tuning.data.tasks.world import World

    task = catalogue.all_tasks()["first_kind"]
    majority, bag = bundled_base.baselines(task, World(task_list=("first_kind",), num_train=500, num_test=100))
    assert majority < 0.5
    assert bag > majority


def test_the_majority_guess_is_the_best_constant() -> None:
    texts = {"train": ["a", "b", "c"], "test": ["a", "b", "c", "d"]}
    majority, _ = bundled_base.fitted_baselines(texts, {"train": ["no", "no", "yes"], "test": ["yes", "yes", "yes", "no"]})
    assert majority == 0.75


def test_beats_asks_for_more_than_seed_noise() -> None:
    row = {"majority": "0.5", "bag_of_words": "0.55"}
    assert bundled_base.beats([row | {"prompt": value} for value in ("0.90", "0.92", "0.91")])
    assert not bundled_base.beats([row | {"prompt": value} for value in ("0.56", "0.60", "0.58")])
    assert not bundled_base.beats([row | {"prompt": value} for value in ("0.30", "0.99", "0.75")])
