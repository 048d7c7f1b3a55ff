"""A bar on a terminal, plain lines elsewhere."""

import io
import time

from prompt_tuning import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_the_bar_shows_steps_loss_rate_and_time_left():
    stream = Terminal()
    with progress.Progress(4, 1, examples_per_step=8, label="train", stream=stream) as shown:
        for loss in (2.5, 1.25, 0.125):
            time.sleep(0.12)  # The bar is drawn ten times a second at most.
            shown.step(loss)
        shown.say("step 4: validation score 0.5000")
    lines = stream.getvalue().replace("\r", "\n").splitlines()
    assert any("train: 100%" in line and "4/4" in line and "loss 0.1250" in line and "examples/s" in line for line in lines)
    assert "train: step 4: validation score 0.5000" in [line.strip() for line in lines]


def test_elsewhere_lines_are_plain_and_far_apart(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with progress.Progress(100, 20, examples_per_step=8, label="tune", stream=stream) as shown:
        for _ in range(30):
            now[0] += 0.5  # Two steps a second, a line every ten seconds.
            shown.step(0.75)
        shown.say("done")
    assert stream.getvalue().splitlines() == [
        "tune: step 41/100  loss 0.7500  16 examples/s  0:29 left",
        "tune: done",
    ]


def test_no_line_before_its_time_and_none_without_steps():
    stream = io.StringIO()
    with progress.Progress(10, 0, examples_per_step=8, stream=stream) as shown:
        shown.step(1.0)
    assert stream.getvalue() == ""


def test_hours_are_written_out():
    assert (progress._clock(59.9), progress._clock(61), progress._clock(3 * 3600 + 4 * 60 + 5)) == ("0:59", "1:01", "3:04:05")
