"""Tokenized examples on disk: found again, never out of date, bounded, and safe to share."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from prompt_tuning.data import example_tables, notes, row_tasks, token_cache
from prompt_tuning.data.rows import TextRow
from prompt_tuning.data.tasks.instructions import Instructions
from tests.data.small import BYTES


@dataclasses.dataclass(frozen=True)
class Lines:
    """A row for each line of a file."""

    path: str
    upper: bool = False


class Counted:
    """Reads the lines of a file, and counts how often."""

    def __init__(self, settings: Lines) -> None:
        self.settings, self.count = settings, 0

    def __call__(self, split: str) -> list[TextRow]:
        self.count += 1
        notes.say(f"note: {split} is read")
        lines = pathlib.Path(self.settings.path).read_text().splitlines()
        return [TextRow(line.upper() if self.settings.upper else line, "yes", ("no", "yes")) for line in lines]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for entries, in which even what is made at once is kept."""
    monkeypatch.setenv(token_cache.VARIABLE, str(tmp_path / "tokens"))
    monkeypatch.setattr(token_cache, "LEAST_SECS", 0.0)
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    return tmp_path / "tokens"


def fresh(settings, *, on_disk=True, name="lines"):
    """The task as a new process would make it, and what reads for it."""
    row_tasks._KNOWN.clear()
    example_tables.example_table.cache_clear()
    read = Counted(settings)
    task = row_tasks.register(name, settings=settings, vocabulary=BYTES.load(), read=read, splits=("train", "test"), on_disk=on_disk)
    return task, read


def table(settings, *, with_choices=False, split="train", **more):
    task, read = fresh(settings, **more)
    return example_tables.example_table(task, split, with_choices), read.count


@pytest.mark.parametrize("with_choices", [False, True])
def test_a_second_process_reads_no_row_and_has_the_same_table(kept, tmp_path, with_choices, capsys):
    settings = Lines(str(tmp_path / "rows.txt"))
    first, count = table(settings, with_choices=with_choices)
    again, count_again = table(settings, with_choices=with_choices)
    assert (count, count_again) == (1, 0)
    assert first.arrays().keys() == again.arrays().keys()
    for name, array in first.arrays().items():
        np.testing.assert_array_equal(array, again.arrays()[name])
        assert array.dtype == again.arrays()[name].dtype
    assert first.choices == again.choices
    assert capsys.readouterr().err.splitlines() == ["note: train is read"] * 2, "what was said is said again"


def test_whatever_decides_an_entry_makes_another(kept, tmp_path, monkeypatch):
    path = tmp_path / "rows.txt"
    settings = Lines(str(path))
    stamp = path.stat()
    assert table(settings)[1] == 1
    assert table(settings, split="test")[1] == 1
    assert table(settings, with_choices=True)[1] == 1
    assert table(dataclasses.replace(settings, upper=True))[1] == 1
    path.write_text("one\ntwa\n")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    changed, count = table(settings)
    assert count == 1 and BYTES.load().decode(changed[1]["inputs"]) == "twa", "the content counts, not its date"
    assert table(settings)[1] == 0
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "package_code", lambda: "other code")
        assert table(settings)[1] == 1
    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "versions", lambda: {"sentencepiece": "0"})
        assert table(settings)[1] == 1
    assert table(settings)[1] == 0


def test_code_outside_of_the_package_decides_an_entry_too(kept, tmp_path, monkeypatch):
    """A format of one's own that stands in settings of ours, say."""
    (tmp_path / "own_format.py").write_text("import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Own:\n    x: int = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import own_format

    source = Instructions(format=own_format.Own(), train_files=str(tmp_path / "rows.txt"))
    entries = [token_cache.entry(fresh((source, "stamp"))[0], "train")]
    (tmp_path / "own_format.py").write_text("# changed\n" + (tmp_path / "own_format.py").read_text())
    entries += [token_cache.entry(fresh((source, "stamp"))[0], "train") for _ in range(2)]
    assert entries[0] != entries[1] == entries[2]


def test_a_broken_entry_is_made_anew(kept, tmp_path):
    settings = Lines(str(tmp_path / "rows.txt"))
    table(settings)
    (path,) = kept.glob("*.npz")
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:-200] + b"\0" * 200):
        path.write_bytes(broken)
        assert table(settings)[1] == 1
        assert path.read_bytes()[:4] == whole[:4] and table(settings)[1] == 0


def test_it_can_be_turned_off_and_is_off_where_a_task_does_not_ask(kept, tmp_path, monkeypatch):
    settings = Lines(str(tmp_path / "rows.txt"))
    assert [table(settings, on_disk=False)[1] for _ in range(2)] == [1, 1]
    monkeypatch.setenv(token_cache.VARIABLE, "")
    assert [table(settings)[1] for _ in range(2)] == [1, 1]
    assert not kept.exists()
    monkeypatch.delenv(token_cache.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert token_cache.folder() == tmp_path / "cache" / "prompt_tuning" / "tokens"


def test_a_folder_that_cannot_be_written_is_no_error(kept, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv(token_cache.VARIABLE, str(tmp_path / "file"))
    assert table(Lines(str(tmp_path / "rows.txt")))[1] == 1


def test_settings_that_say_less_than_they_are_are_not_kept(kept, tmp_path):
    assert token_cache.entry(fresh(object())[0], "train") is None
    assert token_cache.entry(fresh(Lines(str(tmp_path / "rows.txt")))[0], "train") is not None


def test_the_folder_is_bounded_and_what_was_used_last_stays(kept, tmp_path, monkeypatch):
    settings = [Lines(str(tmp_path / f"{number}.txt")) for number in range(4)]
    for each in settings:
        pathlib.Path(each.path).write_text(f"{each.path} {'x' * 5000}\n")
    table(settings[0])
    (first,) = kept.glob("*.npz")
    monkeypatch.setattr(token_cache, "LIMIT_BYTES", int(first.stat().st_size * 2.5))
    table(settings[1])
    for age, path in enumerate([first, *(path for path in kept.glob("*.npz") if path != first)]):
        os.utime(path, (age, age))
    assert table(settings[0])[1] == 0, "it is used again"
    left = kept / ".x.npz.1.tmp"
    left.touch()
    os.utime(left, (1, 1))
    table(settings[2])
    assert len(list(kept.glob("*.npz"))) == 2 and not left.exists()
    assert [table(each)[1] for each in (settings[0], settings[2])] == [0, 0]
    monkeypatch.setattr(token_cache, "LIMIT_BYTES", 100)
    table(settings[3])
    assert table(settings[3])[1] == 1, "what is larger than half of the limit is not kept"


FILL = """
import sys
from prompt_tuning.data import token_cache
from tests.data.test_token_cache import Lines, table
token_cache.LEAST_SECS = 0.0
found = {table(Lines(sys.argv[1]))[0].input_ids.tobytes() for _ in range(40)}
assert len(found) == 1
print(hash(found.pop()[:1000]))
"""


def test_processes_share_a_folder(kept, tmp_path):
    (tmp_path / "rows.txt").write_text("".join(f"row {number}\n" for number in range(500)))
    command = [sys.executable, "-c", FILL, str(tmp_path / "rows.txt")]
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    workers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    found = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert found[0] == found[1] != b""
    assert len(list(kept.iterdir())) == 1
