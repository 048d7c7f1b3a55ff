"""The folder of a run is claimed once, never shared, and never overwritten."""

import json
import os

import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.run_folder import RunFolder, first_difference

SETTINGS = {"class": "Experiment", "seed": 0, "method": {"class": "Prompt", "length": 3}, "tasks": ["a", "b"], "rate": 0.1}


def claimed(path):
    folder = RunFolder(path)
    folder.claim(SETTINGS, "SEED = 0\n")
    return folder


def test_claiming_makes_the_folder_and_says_what_the_run_is(tmp_path):
    claimed(tmp_path / "deep" / "run")
    held = json.loads((tmp_path / "deep" / "run" / "experiment.json").read_text())
    assert held["experiment"] == SETTINGS and held["prompt_tuning"]
    assert (tmp_path / "deep" / "run" / "config.gin").read_text() == "SEED = 0\n"


def test_the_same_run_may_claim_it_again(tmp_path):
    claimed(tmp_path).add_metrics(1, "train", {"loss": 1.0})
    before = (tmp_path / "experiment.json").stat().st_mtime_ns
    claimed(tmp_path)
    assert (tmp_path / "experiment.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 2}, "seed was 0 there, got 2"),
        ({"method": {"class": "Prompt", "length": 4}}, "method.length was 3 there, got 4"),
        ({"method": {"class": "Full"}}, "method.class was 'Prompt' there, got 'Full'"),
        ({"tasks": ["a"]}, r"tasks was \['a', 'b'\] there, got \['a'\]"),
        ({"new": 1}, "new was None there, got 1"),
    ],
)
def test_another_run_is_refused_and_the_first_difference_named(tmp_path, change, says):
    claimed(tmp_path).add_metrics(1, "train", {"loss": 1.0})
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=f"holds another run: {says}.*choose another --workdir"):
        RunFolder(tmp_path).claim(SETTINGS | change, "other")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("trace", ["metrics.jsonl", "results.json", "checkpoints/5"])
def test_only_a_run_with_nothing_to_lose_gives_way(tmp_path, trace):
    claimed(tmp_path)
    RunFolder(tmp_path).claim(SETTINGS | {"seed": 7}, "mended")  # The first stopped over a misspelt path, say.
    assert json.loads((tmp_path / "experiment.json").read_text())["experiment"]["seed"] == 7
    assert (tmp_path / "config.gin").read_text() == "mended"
    (tmp_path / trace).parent.mkdir(exist_ok=True)
    (tmp_path / trace).write_text("{}")
    with pytest.raises(UserError, match="seed was 7 there, got 0"):
        claimed(tmp_path)


def test_a_run_that_is_just_starting_does_not_give_way(tmp_path):
    with claimed(tmp_path).locked(), pytest.raises(UserError, match="another process is training there"):
        RunFolder(tmp_path).claim(SETTINGS | {"seed": 7}, "")
    assert json.loads((tmp_path / "experiment.json").read_text())["experiment"]["seed"] == 0


def test_folders_that_are_no_runs_are_refused_and_not_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files and no experiment.json"):
        claimed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="is a file"):
        claimed(tmp_path / "thesis.txt")
    with pytest.raises(UserError, match="cannot write there"):
        claimed(tmp_path / "thesis.txt" / "run")


@pytest.mark.parametrize(("text", "says"), [("{", "not readable as JSON"), ("[]", "holds another run")])
def test_a_damaged_description_is_refused(tmp_path, text, says):
    claimed(tmp_path).add_metrics(1, "train", {"loss": 1.0})
    (tmp_path / "experiment.json").write_text(text)
    with pytest.raises(UserError, match=says):
        claimed(tmp_path)


def test_the_lock_ends_with_its_context(tmp_path):
    folder = claimed(tmp_path)
    with folder.locked(), pytest.raises(UserError, match="another process"), RunFolder(tmp_path).locked():
        pass
    with folder.locked():
        pass


def test_results_are_none_until_they_are_written(tmp_path):
    folder = claimed(tmp_path)
    assert folder.results is None
    folder.write_json("results.json", {"score": 0.5})
    assert folder.results == {"score": 0.5}


def test_resuming_forgets_later_rows_and_one_that_was_cut_off(tmp_path):
    folder = claimed(tmp_path)
    folder.forget_metrics_after(-1)  # There are none yet.
    for step in range(1, 5):
        folder.add_metrics(step, "train", {"loss": step / 7})
    whole = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "spl')
    folder.forget_metrics_after(4)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(whole)
    folder.forget_metrics_after(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(whole[:2])


def test_rows_keep_their_letters(tmp_path):
    folder = claimed(tmp_path)
    folder.write_rows("predictions.jsonl", [{"inputs": "naïve — 漢字"}])
    assert (tmp_path / "predictions.jsonl").read_text(encoding="utf-8") == '{"inputs": "naïve — 漢字"}\n'


def test_first_difference_is_by_path_and_none_for_equal_trees():
    assert first_difference(SETTINGS, json.loads(json.dumps(SETTINGS))) is None
    assert first_difference({"a": {"b": 1}}, {"a": {"b": 2}}) == ("a.b", 1, 2)
    assert first_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}) == ("a.c", 2, None)
    assert first_difference({"a": {"b": 1}}, {"a": 3}) == ("a", {"b": 1}, 3)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write there"):
        claimed(tmp_path / "run")
