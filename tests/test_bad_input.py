"""What the user gives wrong: one line that says what, where, wanted, got and how to mend it; exit status 2; earlier runs untouched."""

import pathlib

import numpy as np
import pytest

from prompt_tuning import train
from tests import tiny_run

FILES = ("--gin_file=configs/data/files.gin", "--gin.INPUT_COLUMN='text'", "--gin.TARGET_COLUMN='label'")
CHOICES = "--gin.ANSWER_CHOICES=['bad', 'good']"


def refused(capsys: pytest.CaptureFixture[str], workdir: pathlib.Path, *flags: str) -> str:
    """The one line with which the train command refuses these flags."""
    files = tiny_run.write_gin(workdir.parent)
    with pytest.raises(SystemExit) as stop:
        train.main([*tiny_run.arguments(files), f"--workdir={workdir}", *flags])
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert not (workdir / "results.json").exists()
    return lines[0]


def tsv(folder: pathlib.Path, text: str) -> tuple[str, str]:
    """A file as training and as validation data."""
    path = folder / "data.tsv"
    path.write_text(text)
    return f"--gin.TRAIN_FILES='{path}'", f"--gin.VALIDATION_FILES='{path}'"


def test_missing_data_file_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "run", *FILES, CHOICES, "--gin.TRAIN_FILES='nowhere.tsv'", "--gin.VALIDATION_FILES='nowhere.tsv'")
    assert "nowhere.tsv" in line


def test_wrong_column_is_named_with_the_columns_there_are(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "run", *FILES, CHOICES, *tsv(tmp_path, "sentence\tlabel\na\tgood\n"))
    assert "text" in line and "sentence" in line and "data.tsv" in line


def test_label_outside_the_choices_names_file_and_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "run", *FILES, CHOICES, *tsv(tmp_path, "text\tlabel\na\tgood\nb\tfine\n"))
    assert "data.tsv:3" in line and "fine" in line and "good" in line


def test_empty_data_set_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "run", *FILES, CHOICES, *tsv(tmp_path, "text\tlabel\n"))
    assert "data.tsv" in line or "train" in line


def test_unknown_gin_name_names_the_nearest(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "run", "--gin.TRAIN_STEP=3")
    assert "TRAIN_STEP" in line and "TRAIN_STEPS" in line


def test_wrong_prompt_shape_names_both_shapes(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "prompt.npy"
    np.save(path, np.zeros((5, 7), np.float32))
    line = refused(capsys, tmp_path / "run", "--gin.prompt.Prompt.initializer=@prompt.File()", f"--gin.prompt.File.path='{path}'")
    assert "[5, 7]" in line and "[3, 16]" in line


def test_vocabulary_that_is_not_the_models_is_refused(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "run", "--gin.t5.T5Config.vocab_size=1024")
    assert "vocabulary" in line and "smaller" in line and "384" in line and "1024" in line
    line = refused(capsys, tmp_path / "other", "--gin.t5.T5Config.vocab_size=200")
    assert "larger" in line


def test_truncated_base_checkpoint_is_named(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tiny_run.write_gin(tmp_path)
    flags = [f"--gin_file={files['model']}", "--gin_file=configs/methods/full.gin", f"--gin_file={files['data']}"]
    settings = [f"--gin.{setting}" for setting in tiny_run.SETTINGS if not setting.startswith("PROMPT_LENGTH")]
    train.main([*flags, *settings, f"--workdir={tmp_path / 'first'}", "--gin.experiment.Experiment.save_base=True"])
    weights = tmp_path / "first" / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    line = refused(capsys, tmp_path / "run", f"--gin.BASE_CHECKPOINT='{tmp_path / 'first' / 'base'}'")
    assert "model.safetensors" in line


def test_folder_of_another_run_is_refused_and_left_alone(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run.train_tiny(tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    files = tiny_run.write_gin(tmp_path)
    with pytest.raises(SystemExit) as stop:
        train.main([*tiny_run.arguments(files), f"--workdir={run}", "--gin.SEED=7"])
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and "seed" in line and "7" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
