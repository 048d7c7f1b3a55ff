"""Training: the loop. Its step is `programs.train_step`; what is kept, said and evaluated between steps: `running.py`."""

import contextlib
import dataclasses
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

import jax
import numpy as np

from prompt_tuning import assembly, checkpoints, evaluation, processes, programs, sharding, trainable
from prompt_tuning.data import mixtures
from prompt_tuning.errors import UserError
from prompt_tuning.experiment import Experiment, resolved
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.programs import Batch, TrainState
from prompt_tuning.progress import Progress
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.running import Running


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
        length_buckets=experiment.length_buckets or 1,
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


def train(
    experiment: Experiment, workdir: str, *, gin_config: str = "", label: str = "train", progress: Progress | None = None
) -> dict[str, Any]:
    """Trains, or goes on where an earlier run of the same experiment in this folder stopped; gives what `results.json` holds.

    `label` is what the run is called where it says something, and `progress` that of all where it is one of several.

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
        asked_to_stop = stack.enter_context(sigterm())
        # TensorFlow is imported and the first batches are made in the background, while the model is read and the step compiles here.
        start_step = processes.agreed(checkpoints.latest_step(folder.path / "checkpoints") or 0)
        data = stack.enter_context(batches(experiment, start_step=start_step))
        built = assembly.assemble(experiment)
        print(trainable.table(built.rows), flush=True)
        program = programs.program(experiment, built)
        take_step: Callable[..., Any] = program.step
        if experiment.length_buckets is None:  # Else a program is compiled for each bucket, when its first batch comes.
            take_step = program.step.lower(program.state, program.frozen, programs.abstract_batch(experiment, built.mesh)).compile()
        assembly.check_vocabulary(experiment)
        evaluate = evaluator(experiment, built.graphdef, built.frozen)
        run = stack.enter_context(Running(experiment, folder, built, program, evaluate, label=label, progress=progress))
        assert run.step == start_step, (run.step, start_step)
        while run.going:
            state, metrics = take_step(run.state, built.frozen, on_devices(next(data), built.mesh))
            # Asked once a step: a signal that comes during the evaluation waits for the next step, which then saves.
            stopping = asked_to_stop(run.step + 1)
            run.took_step(state, metrics, stopping=stopping)
            if stopping and run.going:
                raise run.interrupted()
        return run.finish()


@contextlib.contextmanager
def sigterm() -> Iterator[Callable[[int], bool]]:
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
