"""The command that looks for evaluation examples in training data."""

import json
import pathlib

import pytest

from prompt_tuning import contamination

SENTENCE = "the third film of the series is by far the longest and at times the dullest of them all"


def rows(path: pathlib.Path, *sentences: str) -> pathlib.Path:
    path.write_text("sentence\tlabel\n" + "".join(f"{sentence}\tnegative\n" for sentence in sentences))
    return path


def flags(folder: pathlib.Path, *more: str, held: str = f"I say: {SENTENCE}!") -> list[str]:
    train = rows(folder / "train.tsv", "a small and quiet joy", held)
    validation = rows(folder / "dev.tsv", SENTENCE, "nothing like it was ever seen before or since")
    test = rows(folder / "test.tsv", "not one of the words of this one stands in any other")
    named = {"TRAIN_FILES": train, "VALIDATION_FILES": validation, "TEST_FILES": test}
    bindings = [f"--gin.{name}='{path}'" for name, path in named.items()]
    columns = ["--gin.INPUT_COLUMN='sentence'", "--gin.TARGET_COLUMN='label'"]
    return ["--gin_file=configs/data/files.gin", *bindings, *columns, *more]


def test_an_overlap_ends_the_command_unless_it_is_allowed(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "overlaps.jsonl"
    with pytest.raises(SystemExit) as stopped:
        contamination.main(flags(tmp_path, f"--output={output}"))
    said = capsys.readouterr()
    assert stopped.value.code == 2
    last = said.err.strip().splitlines()[-1]
    assert last.startswith("error: training data holds examples of the validation split of ") and "(1 of 2)" in last
    task = last.partition("--allow=")[2]
    assert said.out.splitlines()[1].split() == [task, "2", "1", "0", "1", "0"]
    (overlap,) = map(json.loads, output.read_text().splitlines())
    assert (overlap["kind"], overlap["index"], overlap["training_index"]) == ("near", 0, 1)
    assert SENTENCE in overlap["inputs"] and SENTENCE in overlap["training_inputs"]

    contamination.main(flags(tmp_path, f"--allow={task}", "--json"))
    found = json.loads(capsys.readouterr().out)
    assert found == {"split": "validation", "tasks": {task: {"examples": 2, "overlapping": 1, "same": 0, "near": 1, "shared": 0}}}


def test_a_split_that_training_does_not_hold_passes(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    contamination.main(flags(tmp_path, "--split=test"))
    assert capsys.readouterr().out.splitlines()[1].split()[1:] == ["1", "0", "0", "0", "0"]
    contamination.main(flags(tmp_path, held="another sentence"))
    assert capsys.readouterr().out.splitlines()[1].split()[1:] == ["2", "0", "0", "0", "0"]


@pytest.mark.parametrize(
    ("flag", "message"), [("--allow=nothing", "--allow=nothing: no such evaluation task"), ("--ngram=0", "Search: wanted")]
)
def test_wrong_flags_are_one_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], flag: str, message: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        contamination.main(flags(tmp_path, flag))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in line
