"""Training: the loop, read from top to bottom. Its step is `programs.train_step`."""

import contextlib
import dataclasses
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
import numpy as np
from flax import nnx

from prompt_tuning import assembly, checkpoints, evaluation, interop, processes, programs, sharding, trainable
from prompt_tuning.data import mixtures
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.experiment import Experiment, resolved
from prompt_tuning.journal import Best, Journal
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.programs import Batch, TrainState
from prompt_tuning.run_folder import RunFolder

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What the loop needs: the program, and the state that it starts from."""

    program: programs.Program
    state: TrainState

    @property
    def step(self) -> jax.stages.Wrapped:
        """The step under `jit`: (state, frozen, batch) -> (state, metrics)."""
        return self.program.step

    @property
    def places(self) -> TrainState:
        """Where the state lies."""
        return self.program.places


def trainer(experiment: Experiment, built: assembly.Assembly) -> Trainer:
    """The program of an experiment and its first state. Raises what `programs.program` raises."""
    ready = programs.program(experiment, built)
    return Trainer(ready, ready.start(built.tuned))


def on_devices(batch: Mapping[str, np.ndarray], mesh: jax.sharding.Mesh) -> Batch:
    """A batch of this process's rows as arrays over the mesh's `data` axis."""
    rows = sharding.of_rows(mesh)
    return {name: jax.make_array_from_process_local_data(rows, value) for name, value in batch.items()}


def batches(experiment: Experiment, *, start_step: int) -> mixtures.Prefetched:
    """The experiment's training batches from a step on, made in the background."""
    return mixtures.training_batches(
        experiment.data,
        vocabulary=experiment.vocabulary.load,
        input_length=experiment.input_length,
        target_length=experiment.target_length,
        batch_size=experiment.batch_size,
        prompt=experiment.layout,
        seed=experiment.seed,
        start_step=start_step,
        packed=experiment.packed,
        num_choices=0 if experiment.choice_losses is None else experiment.choice_losses.num_choices,
        shard=(jax.process_index(), jax.process_count()),
    )


def evaluator(experiment: Experiment, graphdef: Any, frozen: dict[str, Any]) -> Callable[[dict[str, Any]], evaluation.Report]:
    """A function from what is tuned to its report on the evaluation split; the examples are read once, on the first call."""
    vocabulary = experiment.vocabulary.load()
    lengths = evaluation.Lengths(experiment.input_length, experiment.target_length, experiment.layout)

    @functools.cache
    def tasks() -> list[evaluation.TaskExamples]:
        source = experiment.evaluation_data or experiment.data
        return evaluation.task_examples(source, vocabulary, settings=experiment.evaluation, lengths=lengths, trained_on=experiment.data)

    def evaluate(tuned: dict[str, Any]) -> evaluation.Report:
        return evaluation.evaluate(
            (graphdef, tuned, frozen), tasks(), settings=experiment.evaluation, lengths=lengths, vocabulary=vocabulary
        )

    return evaluate


def train(experiment: Experiment, workdir: str, *, gin_config: str = "", label: str = "train") -> dict[str, Any]:
    """Trains, or goes on where an earlier run of the same experiment in this folder stopped; gives what `results.json` holds.

    Raises:
      UserError: for what the user gave wrong, and for a loss that is not finite.
      Interrupted: after SIGTERM, once the state is saved.

    Of several processes each trains on its devices; the first writes the folder, which all see.
    """
    if isinstance(experiment.model, WhisperConfig):
        raise UserError(
            "train: a Whisper hears, and the tasks here are texts; train it from Python (docs/whisper.md), or set another model"
        )
    folder = RunFolder(workdir, writes=processes.is_first())
    processes.first_alone(lambda: folder.claim(resolved(experiment), gin_config))
    if processes.agreed(folder.results is not None):
        return folder.results or {}
    with contextlib.ExitStack() as stack:
        processes.first_alone(lambda: stack.enter_context(folder.locked()))
        asked_to_stop = stack.enter_context(_sigterm())
        # TensorFlow is imported and the first batches are made in the background, while the model is read and the step compiles here.
        start_step = processes.agreed(checkpoints.latest_step(folder.path / "checkpoints") or 0)
        data = stack.enter_context(batches(experiment, start_step=start_step))
        built = assembly.assemble(experiment)
        print(trainable.table(built.rows), flush=True)
        ready = trainer(experiment, built)
        take_step = ready.step.lower(ready.program.state, ready.program.frozen, programs.abstract_batch(experiment, built.mesh)).compile()
        assembly.check_vocabulary(experiment)
        evaluate = evaluator(experiment, built.graphdef, built.frozen)
        saved = stack.enter_context(
            checkpoints.Checkpoints(folder.path / "checkpoints", base=built.base, keep_latest=experiment.keep_checkpoints)
        )
        state, best, seconds = _resume(ready, saved, folder, experiment)
        step = int(state.step)
        assert step == start_step, (step, start_step)
        journal = stack.enter_context(Journal(folder, experiment, start_step=step, label=label))
        stopped = best.evals_since >= experiment.early_stopping_evals > 0
        unread: list[tuple[int, dict[str, Array]]] = []
        report = None
        started = time.monotonic()

        while step < experiment.train_steps and not stopped:
            state, metrics = take_step(state, built.frozen, on_devices(next(data), built.mesh))
            step += 1
            unread.append((step, metrics))
            last = step == experiment.train_steps
            evaluating = last or _due(step, experiment.eval_steps)
            # Asked once a step: a signal that comes during the evaluation waits for the next step, which then saves.
            stopping = asked_to_stop(step)
            saving = last or _due(step, experiment.checkpoint_steps) or stopping
            # Metrics are read one step late, so that the devices are not waited for; all are read before anything is kept.
            while len(unread) > (0 if evaluating or saving else 1):
                journal.trained(*unread.pop(0))
            score = None
            if evaluating:
                report = evaluate(state.tuned)
                score, best = report.score, best.after(step, report.score)
                stopped = best.evals_since >= experiment.early_stopping_evals > 0
                journal.evaluated(step, report, best)
                saving = saving or stopped or best.step == step
            if saving:
                spent = seconds + time.monotonic() - started
                extra = {"best": dataclasses.asdict(best), "seconds": spent, "data_step": step}
                saved.save(step, state.tuned, state.optimizer_state, extra=extra, metric=score)
            if stopping and not (last or stopped):
                saved.wait()
                raise Interrupted(f"saved at step {step} of {experiment.train_steps} in {folder.path}; the same command resumes")

        seconds += time.monotonic() - started
        saved.wait()
        if report is None:  # An earlier process ended between its last step and `results.json`.
            report = evaluate(state.tuned)
        if best.step != step:
            state = state._replace(tuned=_restored(saved.restore_best(ready.program.state.tuned)).trainable)
        return _finish(experiment, folder, built, state.tuned, evaluate, final=report, best=best, steps=step, seconds=seconds)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _resume(ready: Trainer, saved: checkpoints.Checkpoints, folder: RunFolder, experiment: Experiment) -> tuple[TrainState, Best, float]:
    restored = saved.restore_latest(ready.program.state.tuned, ready.program.state.optimizer_state)
    if restored is None:
        folder.forget_metrics_after(-1)
        return ready.state, Best(), 0.0
    folder.forget_metrics_after(restored.step)
    print(f"resuming at step {restored.step} of {experiment.train_steps}", flush=True)
    step = sharding.put(np.int32(restored.step), ready.places.step)
    return TrainState(step, restored.trainable, restored.optimizer_state), Best(**restored.extra["best"]), restored.extra["seconds"]


def _restored(found: checkpoints.Restored | None) -> checkpoints.Restored:
    assert found is not None, "a run that took a step has a checkpoint"
    return found


def _finish(
    experiment: Experiment,
    folder: RunFolder,
    built: assembly.Assembly,
    best_tuned: dict[str, Any],
    evaluate: Callable[[dict[str, Any]], evaluation.Report],
    *,
    final: evaluation.Report,
    best: Best,
    steps: int,
    seconds: float,
) -> dict[str, Any]:
    """Writes what comes out of a run; `results.json` last, so that a folder that has it is whole."""
    report = final if best.step == steps else evaluate(best_tuned)
    folder.write_rows("predictions.jsonl", report.predictions)
    flat = trainable.named(best_tuned)
    prompt = nnx.merge(built.graphdef, best_tuned, built.frozen).embed.prompt
    if prompt is not None:  # The rows, whatever makes them: what a network made needs the network no more.
        prompt_PD = sharding.on_host(prompt())
        if folder.writes:
            checkpoints.save_prompt_npy(folder.path / "prompt.npy", prompt_PD)
    if experiment.save_base:
        base = {name: sharding.on_host(value) for name, value in (trainable.named(built.frozen) | flat).items()}
        if folder.writes:
            interop.save_base(folder.path / "base", base, config=experiment.model, dtype="bfloat16")
    trained, frozen = trainable.totals(built.rows)
    results = {
        "split": experiment.evaluation.split,
        "final": {"step": steps, "score": final.score, "metrics": final.metrics},
        "best": {"step": best.step, "score": report.score, "metrics": report.metrics},
        "trained_parameters": trained,
        "frozen_parameters": frozen,
        "steps": steps,
        "seconds": round(seconds, 3),
        "stored_bytes": sum(row.num_bytes for row in built.rows if row.trained),
    }
    folder.write_json("results.json", results)
    return results


@contextlib.contextmanager
def _sigterm() -> Iterator[Callable[[int], bool]]:
    """A function of the step that says whether SIGTERM has come; outside the main thread it never does."""
    if processes.count() > 1:  # JAX listens itself, and makes all processes stop after the same step.
        yield processes.asked_to_stop
        return
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False
        return

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    previous = signal.signal(signal.SIGTERM, handler)
    try:
        yield lambda step: asked.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous)
