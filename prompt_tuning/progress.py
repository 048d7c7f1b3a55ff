"""How a long run tells where it stands: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from typing import TextIO

import tqdm

_LINE_SECS = 10.0


class Progress:
    """Steps done, rate and time left. A context: leaves the terminal clean."""

    def __init__(self, total_steps: int, start_step: int, *, examples_per_step: int, label: str = "train", stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._total, self._done = total_steps, start_step
        self._examples_per_step = examples_per_step
        self._label = label
        self._note = ""
        self._started, self._start_step, self._last_line = time.monotonic(), start_step, time.monotonic()
        self._bar = (
            tqdm.tqdm(total=total_steps, initial=start_step, desc=label, unit="step", file=self._stream, dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, loss: float | None = None) -> None:
        """One more step is done."""
        self._done += 1
        if loss is not None:
            self._note = f"loss {loss:.4f}"
        if self._bar is not None:
            rate = self._bar.format_dict["rate"]
            self._bar.set_postfix_str(
                f"{self._note}, {rate * self._examples_per_step:.0f} examples/s" if rate else self._note, refresh=False
            )
            self._bar.update()
        elif time.monotonic() - self._last_line > _LINE_SECS:
            self._last_line = time.monotonic()
            rate = (self._done - self._start_step) / max(1e-9, self._last_line - self._started)
            left = (self._total - self._done) / rate
            self.say(f"step {self._done}/{self._total}  {self._note}  {rate * self._examples_per_step:.0f} examples/s  {_clock(left)} left")

    def skip(self, steps: int) -> None:
        """So many of the steps will not be taken."""
        self._total -= steps
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.refresh()

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        line = f"{self._label}: {text}"
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)


def _clock(secs: float) -> str:
    minutes, secs = divmod(int(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
