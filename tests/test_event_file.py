"""TensorBoard reads what is written, and TensorFlow is not imported for it."""

import subprocess
import sys

from prompt_tuning.event_file import EventFile


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(folder))
    held.Reload()
    return {tag: [(event.step, event.value) for event in held.Scalars(tag)] for tag in held.Tags()["scalars"]}


def test_tensorboard_reads_the_scalars_of_two_files_as_one_run(tmp_path):
    for steps in ((1, 2), (3,)):
        events = EventFile(tmp_path / "tensorboard")
        for step in steps:
            events.write(step, {"train/loss": 0.5 * step, "train/gradient_norm": 2.0})
        events.close()
    assert read(tmp_path / "tensorboard") == {
        "train/loss": [(1, 0.5), (2, 1.0), (3, 1.5)],
        "train/gradient_norm": [(1, 2.0), (2, 2.0), (3, 2.0)],
    }


def test_scalars_are_there_before_the_file_is_closed(tmp_path):
    events = EventFile(tmp_path)
    events.write(7, {"dev/score": 0.25})
    assert read(tmp_path) == {"dev/score": [(7, 0.25)]}
    events.close()


def test_nothing_is_written_where_nothing_is_said(tmp_path):
    EventFile(tmp_path / "none").close()
    assert not (tmp_path / "none").exists()


def test_tensorflow_stays_out(tmp_path):
    code = f"""
import sys
from prompt_tuning.event_file import EventFile
EventFile({str(tmp_path)!r}).write(1, {{"a": 1.0}})
assert "tensorflow" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error::ResourceWarning", "-c", code], check=True)
