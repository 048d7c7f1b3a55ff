import os

import pytest

from prompt_tuning.files import atomic_write


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    file = tmp_path / "results.json"
    atomic_write(file, "first é")
    assert file.read_text("utf-8") == "first é"

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(file, b"second")
    assert file.read_text("utf-8") == "first é"
    assert list(tmp_path.iterdir()) == [file]
