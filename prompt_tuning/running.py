"""A run while it trains, apart from its steps: what its folder keeps, what is said, when it is evaluated, and when it ends."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from prompt_tuning import assembly, checkpoints, evaluation, interop, programs, sharding, trainable
from prompt_tuning.errors import Interrupted
from prompt_tuning.experiment import Experiment
from prompt_tuning.journal import Best, Journal
from prompt_tuning.programs import TrainState
from prompt_tuning.progress import Progress
from prompt_tuning.run_folder import RunFolder

Array = jax.Array


class Running:
    """One run, from its last checkpoint to its results. A context: its files are closed and its last save ends.

    Attributes:
      state: the state after `step` steps.
      step: how many were taken.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        built: assembly.Assembly,
        program: programs.Program,
        evaluate: Callable[[dict[str, Any]], evaluation.Report],
        *,
        label: str,
        progress: Progress | None = None,
    ):
        """Reads the latest checkpoint, or makes the state before the first step.

        Args:
          experiment, folder: settings, and a folder that holds this run.
          built, program: what `programs.program` made of the experiment.
          evaluate: of what is tuned.
          label: what the run is called where it says something.
          progress: of several runs together; None for one of its own.
        """
        self.experiment, self.folder = experiment, folder
        self._built, self._program, self._evaluate = built, program, evaluate
        self._unread: list[tuple[int, Mapping[str, Array]]] = []
        self._report: evaluation.Report | None = None
        with contextlib.ExitStack() as stack:
            self._saved = stack.enter_context(
                checkpoints.Checkpoints(folder.path / "checkpoints", base=built.base, keep_latest=experiment.keep_checkpoints)
            )
            self.state, self._best, self._seconds = self._restored(f"{label}: " if progress else "")
            self.step = int(self.state.step)
            journal = Journal(folder, experiment, start_step=self.step, label=label, progress=progress)
            self._journal = stack.enter_context(journal)
            self._stack = stack.pop_all()
        self._started = time.monotonic()

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _restored(self, name: str) -> tuple[TrainState, Best, float]:
        restored = self._saved.restore_latest(self._program.state.tuned, self._program.state.optimizer_state)
        if restored is None:
            self.folder.forget_metrics_after(-1)
            return self._program.start(self._built.tuned), Best(), 0.0
        self.folder.forget_metrics_after(restored.step)
        print(f"{name}resuming at step {restored.step} of {self.experiment.train_steps}", flush=True)
        step = sharding.put(np.int32(restored.step), self._program.places.step)
        state = TrainState(step, restored.trainable, restored.optimizer_state)
        return state, Best(**restored.extra["best"]), restored.extra["seconds"]

    @property
    def going(self) -> bool:
        """Whether there are steps to take."""
        return self.step < self.experiment.train_steps and not self._best.evals_since >= self.experiment.early_stopping_evals > 0

    def took_step(self, state: TrainState, metrics: Mapping[str, Array], *, stopping: bool) -> None:
        """Takes over the state after one more step; evaluates and saves where it is time to.

        Args:
          state, metrics: of the step.
          stopping: whether the process was asked to stop, so that the state must be saved.

        Raises UserError for a loss that is not finite.
        """
        self.state, self.step = state, self.step + 1
        self._unread.append((self.step, metrics))
        last = self.step == self.experiment.train_steps
        evaluating = last or _due(self.step, self.experiment.eval_steps)
        saving = last or _due(self.step, self.experiment.checkpoint_steps) or stopping
        # Metrics are read one step late, so that the devices are not waited for; all are read before anything is kept.
        while len(self._unread) > (0 if evaluating or saving else 1):
            self._journal.trained(*self._unread.pop(0))
        score = None
        if evaluating:
            self._report = self._evaluate(state.tuned)
            score, self._best = self._report.score, self._best.after(self.step, self._report.score)
            self._journal.evaluated(self.step, self._report, self._best)
            saving = saving or not self.going or self._best.step == self.step
        if saving:
            extra = {"best": dataclasses.asdict(self._best), "seconds": self.seconds, "data_step": self.step}
            self._saved.save(self.step, state.tuned, state.optimizer_state, extra=extra, metric=score)

    @property
    def seconds(self) -> float:
        """Since the first step, without what lay between an interruption and going on."""
        return self._seconds + time.monotonic() - self._started

    def interrupted(self) -> Interrupted:
        """What is raised once a run that was asked to stop has saved itself."""
        self._saved.wait()
        return Interrupted(f"saved at step {self.step} of {self.experiment.train_steps} in {self.folder.path}; the same command resumes")

    def finish(self) -> dict[str, Any]:
        """Writes what comes out of the run; `results.json` last, so that a folder that has it is whole. Gives what it holds."""
        seconds = self.seconds
        self._saved.wait()
        tuned, built = self.state.tuned, self._built
        # An earlier process may have ended between its last step and `results.json`.
        final = report = self._report or self._evaluate(tuned)
        if self._best.step != self.step:
            best = self._saved.restore_best(self._program.state.tuned)
            assert best is not None, "a run that took a step has a checkpoint"
            tuned, report = best.trainable, self._evaluate(best.trainable)
        self.folder.write_rows("predictions.jsonl", report.predictions)
        prompt = nnx.merge(built.graphdef, tuned, built.frozen).embed.prompt
        if prompt is not None:  # The rows, whatever makes them: what a network made needs the network no more.
            prompt_PD = sharding.on_host(prompt())
            if self.folder.writes:
                checkpoints.save_prompt_npy(self.folder.path / "prompt.npy", prompt_PD)
        if self.experiment.save_base:
            whole = trainable.named(built.frozen) | trainable.named(tuned)
            base = {name: sharding.on_host(value) for name, value in whole.items()}
            if self.folder.writes:
                interop.save_base(self.folder.path / "base", base, config=self.experiment.model, dtype="bfloat16")
        trained, frozen = trainable.totals(built.rows)
        results = {
            "split": self.experiment.evaluation.split,
            "final": {"step": self.step, "score": final.score, "metrics": final.metrics},
            "best": {"step": self._best.step, "score": report.score, "metrics": report.metrics},
            "trained_parameters": trained,
            "frozen_parameters": frozen,
            "steps": self.step,
            "seconds": round(seconds, 3),
            "stored_bytes": sum(row.num_bytes for row in built.rows if row.trained),
        }
        self.folder.write_json("results.json", results)
        return results


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
