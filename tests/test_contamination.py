"""The command that looks for evaluation examples in training data."""

import dataclasses
import json
import pathlib
import random
from typing import Any

import pytest

from prompt_tuning import contamination, train
from prompt_tuning.data import example_tables, mixtures, overlap, row_tasks, token_cache
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.tasks.world import World
from prompt_tuning.errors import UserError
from tests import tiny_run
from tests.tiny_experiment import tiny_experiment

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


@dataclasses.dataclass(frozen=True)
class Sentences:
    """A task over sentences that are given; `endless` says that they have no end."""

    name: str
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    endless: bool = False

    @property
    def task_names(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    def tasks(self, vocabulary: Any) -> list[row_tasks.RowTask]:
        """The task; each reading of its rows is noted in READ."""

        def read(split: str) -> list[TextRow]:
            READ.append((self.name, split))
            return [TextRow(text, "yes") for text in getattr(self, split)]

        splits = [split for split in ("train", "validation") if getattr(self, split)]
        task = row_tasks.register(self.name, settings=self, vocabulary=vocabulary, read=read, splits=splits, on_disk=True)
        task.streaming = self.endless
        return [task]


READ: list[tuple[str, str]] = []
WORDS = [f"word{number}" for number in range(400)]


def sentence(seed: int, words: int = 20) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def guarded(data: Any, evaluation_data: Any = None, **guard: Any) -> Any:
    return tiny_experiment(data=data, evaluation_data=evaluation_data, overlaps=overlap.Guard(**guard))


def test_training_refuses_examples_of_a_task_that_it_does_not_train_on() -> None:
    shared = f"{sentence(1)} {sentence(2)}"
    trained = Sentences("trained", train=(sentence(1), *(sentence(n) for n in range(10, 30))))
    held = Sentences("held_a", validation=(shared, sentence(3)))
    clean = Sentences("clean", validation=(sentence(4),))
    contamination.refuse(guarded(trained, clean))
    with pytest.raises(UserError) as refused:
        contamination.refuse(guarded(trained, mixtures.Mixture((held, clean))))
    said = str(refused.value)
    assert "validation examples of tasks that are not trained on: held_a (1)" in said and "ALLOW_OVERLAP=\"['held_a']\"" in said
    for allow in ("held_a", ("clean", "held_*"), "*"):
        contamination.refuse(guarded(trained, mixtures.Mixture((held, clean)), allow=allow))
    short = dataclasses.replace(held, validation=(" ".join(shared.split()[:12]),))
    contamination.refuse(guarded(trained, short))
    same = dataclasses.replace(held, validation=(sentence(10).upper() + "!",))
    with pytest.raises(UserError, match=r"held_a \(1\)"):
        contamination.refuse(guarded(trained, same))


def test_a_validation_file_that_is_the_training_file_is_refused_and_a_few_rows_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    texts = tuple(sentence(n) for n in range(8))
    with pytest.raises(UserError, match="half of the validation examples of own or more are its training examples"):
        contamination.refuse(guarded(Sentences("own", train=texts, validation=texts[:4])))
    contamination.refuse(guarded(Sentences("own", train=texts, validation=texts[:4]), allow="own"))
    contamination.refuse(guarded(Sentences("own", train=texts, validation=(*texts[:1], *(sentence(n) for n in range(20, 23))))))
    assert capsys.readouterr().err.strip() == "note: 1 of 4 validation examples of own are training examples of it too, targets and all"
    contamination.refuse(guarded(Sentences("own", train=texts, validation=tuple(f"{text} more" for text in texts))))
    assert capsys.readouterr().err == "", "what differs is no example twice"


def test_text_without_end_and_large_data_are_not_looked_through(capsys: pytest.CaptureFixture[str]) -> None:
    trained, held = Sentences("t", train=(sentence(1), sentence(2))), Sentences("h", validation=(sentence(1),))
    contamination.refuse(guarded(dataclasses.replace(trained, name="endless", endless=True), held))
    assert capsys.readouterr().err == ""
    contamination.refuse(guarded(trained, held, max_examples=1))
    assert "note: 2 training examples are not looked through" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"h \(1\)"):
        contamination.refuse(guarded(trained, held, max_examples=2))


def test_what_was_found_is_kept_for_the_next_start(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(token_cache.VARIABLE, str(tmp_path))
    monkeypatch.setattr(token_cache, "LEAST_SECS", 0.0)
    trained, held = Sentences("kept_t", train=(sentence(1), sentence(2))), Sentences("kept_h", validation=(sentence(1),))
    for reads in (2, 0):
        READ.clear()
        example_tables.example_table.cache_clear()
        with pytest.raises(UserError, match=r"kept_h \(1\)"):
            contamination.refuse(guarded(trained, held))
        assert len(READ) == reads
    found = len(list(tmp_path.glob("*.npz")))
    with pytest.raises(UserError, match=r"kept_h \(1\)"):
        contamination.refuse(guarded(trained, held, search=overlap.Search(ngram=5, similarity=None)))
    assert len(list(tmp_path.glob("*.npz"))) == found + 1, "other settings are another question"


def test_the_worlds_clusters_hold_nothing_of_each_other() -> None:
    """Held-out clusters of the world are never refused; a part of it stands for the whole here."""
    for cluster in ("arithmetic", "words"):
        settings = {"num_train": 300, "num_validation": 50, "form": "instructions"}
        trained = World(held_out=(cluster,), **settings)
        held = World(clusters=(cluster,), **settings)
        assert set(trained.task_names).isdisjoint(held.task_names)
        contamination.refuse(tiny_experiment(data=trained, evaluation_data=held))
        contamination.refuse(tiny_experiment(data=held))


def test_the_train_command_says_it_in_one_line(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows(tmp_path / "train.tsv", *(sentence(n) for n in range(6)))
    gin = tiny_run.write_gin(tmp_path)
    named = [f"--gin.{name}='{tmp_path / 'train.tsv'}'" for name in ("TRAIN_FILES", "VALIDATION_FILES")]
    flags = [f"--gin_file={file}" for file in (gin["model"], "configs/methods/prompt.gin", "configs/data/files.gin")]
    flags += [*named, "--gin.INPUT_COLUMN='sentence'", "--gin.TARGET_COLUMN='label'", f"--workdir={tmp_path / 'run'}"]
    flags += [f"--gin.{each}" for each in tiny_run.SETTINGS if "EVAL" not in each]
    with pytest.raises(SystemExit, match="2"):
        train.main(flags)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "--gin.ALLOW_OVERLAP=\"['files']\"" in line
    train.main([*flags, "--gin.ALLOW_OVERLAP=['files']"])
    assert (tmp_path / "run" / "results.json").exists()
