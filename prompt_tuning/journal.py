"""What a run says while it trains: `metrics.jsonl`, TensorBoard, the progress bar; and which evaluation was the best."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping

import jax

from prompt_tuning import evaluation
from prompt_tuning.errors import UserError
from prompt_tuning.event_file import EventFile
from prompt_tuning.experiment import Experiment
from prompt_tuning.progress import Progress
from prompt_tuning.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Best:
    """The best evaluation so far."""

    step: int = -1
    score: float = -math.inf
    evals_since: int = 0

    def after(self, step: int, score: float) -> "Best":
        """Itself with one more evaluation; among equals the earliest stays."""
        better = score > self.score
        return Best(step, score) if better else dataclasses.replace(self, evals_since=self.evals_since + 1)


class Journal:
    """What a run says while it trains: `metrics.jsonl`, TensorBoard, the progress bar; nothing where its folder's `writes` is False.

    Where the run is one of several, `progress` is theirs, and lines on this run say its `label`.
    """

    def __init__(self, folder: RunFolder, experiment: Experiment, *, start_step: int, label: str, progress: Progress | None = None):
        self._folder, self._experiment = folder, experiment
        self._name = f"{label}: " if progress is not None else ""
        self._ours = contextlib.ExitStack()
        self._board = self._progress = None
        if folder.writes:
            self._board = EventFile(folder.path / "tensorboard")
            self._ours.callback(self._board.close)
            self._progress = progress or self._ours.enter_context(
                Progress(experiment.train_steps, start_step, examples_per_step=experiment.batch_size, label=label)
            )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._ours.close()

    def trained(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """One step. Raises UserError where the loss or the gradient is not finite."""
        values = {name: float(value) for name, value in metrics.items()}
        # A gradient that is not finite has spoilt the weights already: they must not be saved.
        wrong = next((name for name in ("loss", "gradient_norm") if not math.isfinite(values[name])), None)
        if wrong:
            raise UserError(
                f"{wrong.replace('_', ' ')} is {values[wrong]} at step {step}; wanted a finite number; earlier checkpoints are kept; "
                "lower LEARNING_RATE or set experiment.Experiment.gradient_clip_norm, and use a new --workdir"
            )
        if self._progress is not None:
            self._progress.step(values["loss"])
        if step % self._experiment.log_steps == 0:
            self._write(step, "train", values)

    def evaluated(self, step: int, report: evaluation.Report, best: Best) -> None:
        """One evaluation."""
        split = self._experiment.evaluation.split
        values = {"score": report.score} | {f"{task}/{name}": v for task, found in report.metrics.items() for name, v in found.items()}
        self._write(step, split, values)
        if self._progress is not None:
            self._progress.say(f"{self._name}step {step}: {split} score {report.score:.4f} (best {best.score:.4f} at step {best.step})")

    def _write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        self._folder.add_metrics(step, split, values)
        if self._board is not None:
            self._board.write(step, {f"{split}/{name}": value for name, value in values.items()})
