"""The folder of a run: what it was, what it measured, what came out; written so that a result is explained by its folder alone.

| file | what |
|---|---|
| `experiment.json` | every setting, resolved |
| `config.gin` | the gin configuration as it was given |
| `metrics.jsonl` | a row each logging or evaluation step: `step`, `split`, metrics |
| `results.json` | written last: final and best metrics, trained parameters, seconds, bytes stored |
| `predictions.jsonl` | a row an evaluated example, of the best checkpoint |
| `prompt.npy` | the best prompt [P, D] in float32, where there is one |
| `checkpoints/` | see `checkpoints.py` |
| `tensorboard/` | the same metrics for TensorBoard |
"""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import prompt_tuning
from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write


class RunFolder:
    """One run's folder. Of several processes one writes: the others' `writes` is False, and what they would write is dropped."""

    def __init__(self, path: str | os.PathLike[str], *, writes: bool = True):
        self.path = pathlib.Path(path)
        self.writes = writes

    def claim(self, settings: Mapping[str, Any], gin_config: str) -> None:
        """Takes the folder for a run with these settings, or finds it taken by the very same run.

        A run that stopped before it measured or saved anything, say over a misspelt path, leaves the folder free for the mended command.
        Raises UserError where it holds another run, naming the first setting that differs, or files that are no run's.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--workdir {self.path}: is a file; wanted a folder")
        described = self.path / "experiment.json"
        if described.exists():
            try:
                held = json.loads(described.read_text())
            except ValueError as error:
                raise UserError(f"{described}: not readable as JSON ({error}); choose another --workdir") from error
            difference = first_difference(held.get("experiment") if isinstance(held, dict) else None, settings)
            if difference is None:
                return
            if self.begun:
                where, was, got = difference
                raise UserError(
                    f"--workdir {self.path} holds another run: {where} was {was!r} there, got {got!r}; "
                    "choose another --workdir, or give the settings of that run to resume it"
                )
            with self.locked():
                self._describe(settings, gin_config)
            return
        if self.path.exists() and any(self.path.iterdir()):
            raise UserError(
                f"--workdir {self.path} holds files and no experiment.json; wanted an empty or new folder; choose another --workdir"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._describe(settings, gin_config)
        except OSError as error:
            raise UserError(f"--workdir {self.path}: cannot write there ({error}); choose another --workdir") from error

    @property
    def begun(self) -> bool:
        """Whether the run in the folder has anything to lose."""
        return any((self.path / name).exists() for name in ("metrics.jsonl", "results.json")) or any(self.path.glob("checkpoints/*"))

    def _describe(self, settings: Mapping[str, Any], gin_config: str) -> None:
        atomic_write(self.path / "config.gin", gin_config)
        described = {"prompt_tuning": prompt_tuning.__version__, "experiment": settings}
        atomic_write(self.path / "experiment.json", json.dumps(described, indent=2) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second run out while this one trains. Raises UserError where another holds the folder."""
        if not self.writes:
            yield
            return
        with open(self.path / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"--workdir {self.path}: another process is training there; wait for it or choose another --workdir"
                ) from error
            yield

    @property
    def results(self) -> dict[str, Any] | None:
        """What `results.json` says; None while the run is not finished."""
        path = self.path / "results.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write_json(self, name: str, value: Any) -> None:
        """Writes a JSON file whole."""
        if self.writes:
            atomic_write(self.path / name, json.dumps(value, indent=2) + "\n")

    def write_rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes a JSONL file whole."""
        if self.writes:
            atomic_write(self.path / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def add_metrics(self, step: int, split: str, metrics: Mapping[str, Any]) -> None:
        """Adds a row to `metrics.jsonl`."""
        if not self.writes:
            return
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "split": split} | dict(metrics)) + "\n")

    def forget_metrics_after(self, step: int) -> None:
        """Drops the rows of later steps, which a resumed run will measure again, and a last row that was cut off."""
        path = self.path / "metrics.jsonl"
        if not self.writes or not path.exists():
            return
        kept = []
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                kept.append(row)
        self.write_rows("metrics.jsonl", kept)


def first_difference(held: Any, wanted: Any, where: str = "") -> tuple[str, Any, Any] | None:
    """The first place at which two trees of JSON values differ: its path, and both values; None where they are equal."""
    if isinstance(held, dict) and isinstance(wanted, dict):
        for key in {**wanted, **held}:
            inner = first_difference(held.get(key), wanted.get(key), f"{where}.{key}" if where else key)
            if inner:
                return inner
        return None
    return None if held == wanted else (where, held, wanted)
