"""Which runs can share a program, and how those that do are trained side by side.

Runs share a program where they have one base, the same sizes, method and number of steps: they may differ in seed, data, optimizer, first
values and, where a plain prompt stands in the embedding, in its length. A run whose method changes or trains the base's own weights has a
base of its own, and is trained alone.
"""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from prompt_tuning import assembly, checkpoints, many_runs, programs, trainable, training
from prompt_tuning.errors import Interrupted, UserError
from prompt_tuning.experiment import Experiment, resolved
from prompt_tuning.methods.prompt import PromptRows
from prompt_tuning.models.layers import Fixed, Tunable
from prompt_tuning.models.whisper import WhisperConfig
from prompt_tuning.progress import Progress
from prompt_tuning.run_folder import RunFolder
from prompt_tuning.running import Running

# What all runs of a program have in common, beside the shapes of what they tune.
_SAME = (
    "model", "vocabulary", "base_checkpoint", "base_quantization", "mesh", "train_steps", "batch_size", "input_length", "target_length",
    "packed", "dropout_rate", "z_loss", "label_smoothing", "choice_losses",
)  # fmt: skip


class Forms:
    """Tells the forms of experiments; what several of them have in common is traced once."""

    def __init__(self) -> None:
        self._traced: dict[str, Hashable | None] = {}

    def __call__(self, experiment: Experiment) -> Hashable | None:
        """Equal for experiments that can share a program; None for one that is trained alone."""
        if isinstance(experiment.model, WhisperConfig) or experiment.method.trainable is not Tunable:
            return None
        key = json.dumps([resolved(getattr(experiment, name)) for name in (*_SAME, "method")])
        if key not in self._traced:
            self._traced[key] = _traced(experiment)
        traced = self._traced[key]
        same = json.dumps([resolved(getattr(experiment, name)) for name in _SAME])
        # A random base is drawn from the seed.
        return None if traced is None else (same, experiment.seed if experiment.base_checkpoint is None else None, traced)


def _traced(experiment: Experiment) -> Hashable | None:
    """The graph definition, and the shapes of what a run has of its own; None where the method changes the base's weights."""
    mesh = experiment.mesh.build()
    built = assembly.abstract(experiment, mesh)
    model = nnx.merge(built.graphdef, built.tuned, built.frozen)
    variables = dict(trainable.named_variables(model))
    own = {name for name, variable in variables.items() if isinstance(variable, Tunable | Fixed)}
    if any(row.source != assembly.UNREAD and row.name not in own for row in built.rows):
        return None
    embed = getattr(model, "embed", None)
    any_length = type(getattr(embed, "prompt", None)) is PromptRows
    shapes = tuple(
        (name, variables[name].get_value().shape[any_length and name == many_runs.ROWS :], str(variables[name].get_value().dtype))
        for name in sorted(own)
    )
    batch = programs.abstract_batch(experiment, mesh)
    return built.graphdef, shapes, tuple(sorted((name, value.shape[:-1]) for name, value in batch.items()))


def grouped(experiments: Sequence[Experiment], *, most: int) -> list[list[int]]:
    """The numbers of runs that share a program, at most so many each; those of one form in order of the length of their prompts."""
    form_of = Forms()
    forms: dict[Hashable, list[int]] = {}
    for number, experiment in enumerate(experiments):
        form = form_of(experiment) if most > 1 else None
        forms.setdefault(("alone", number) if form is None else form, []).append(number)
    groups = []
    for members in forms.values():
        # What the longest prompt of a program takes, all take.
        members.sort(key=lambda number: experiments[number].layout.encoder_length + experiments[number].layout.decoder_length)
        groups += [sorted(members[start : start + most]) for start in range(0, len(members), most)]
    return sorted(groups)


@dataclasses.dataclass
class _Member:
    """A run of a program: what it is made of, its data, and what came of it, once it has ended."""

    run: Running
    built: assembly.Assembly
    alone: programs.Program
    data: Iterator[Mapping[str, np.ndarray]]
    progress: Progress
    batch: Mapping[str, np.ndarray] | None = None
    outcome: dict[str, Any] | UserError | None = None

    def next_batch(self) -> Mapping[str, np.ndarray]:
        """The next batch; of a run that has ended its last, which changes nothing."""
        if self.outcome is None:
            self.batch = next(self.data)
        assert self.batch is not None
        return self.batch

    def took_step(self, state: programs.TrainState, metrics: Mapping[str, Any], *, stopping: bool) -> None:
        """After a step of the program."""
        if self.outcome is not None:
            self.run.state = state
            return
        try:
            self.run.took_step(state, metrics, stopping=stopping)
        except UserError as error:  # Of this run alone: its loss is not finite.
            self._end(error)
        self.end_if_done()

    def end_if_done(self) -> None:
        """Writes the results of a run that has taken its last step."""
        if self.outcome is None and not self.run.going:
            self._end(self.run.finish())

    def _end(self, outcome: dict[str, Any] | UserError) -> None:
        self.outcome = outcome
        self.progress.skip(self.run.experiment.train_steps - self.run.step)


def train_together(
    experiments: Sequence[Experiment], folders: Sequence[RunFolder], *, names: Sequence[str], progress: Progress
) -> list[dict[str, Any] | UserError]:
    """Trains runs of one form in one program, or goes on where they stopped; gives what each run's `results.json` holds.

    A run whose loss is not finite ends, with a UserError in place of its results, and the others go on. Where at most half of the runs of
    a program are still going, a smaller one is compiled for them.

    Args:
      experiments: of one form (`Forms`).
      folders: one a run, which has claimed it and is not finished.
      names: what the runs are called.
      progress: over all their steps.

    Raises:
      UserError: for what ends all of them.
      Interrupted: after SIGTERM, once all states are saved.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders:
            stack.enter_context(folder.locked())
        asked_to_stop = stack.enter_context(training.sigterm())
        starts = [checkpoints.latest_step(folder.path / "checkpoints") or 0 for folder in folders]
        streams = [
            stack.enter_context(training.batches(experiment, start_step=start))
            for experiment, start in zip(experiments, starts, strict=True)
        ]
        builts = assembly.assemble_several(experiments)
        # What makes the batches has imported TensorFlow by then: two threads cannot at once.
        data = [itertools.chain([next(one)], one) for one in streams]
        assembly.check_vocabulary(experiments[0])
        members = []
        for experiment, folder, name, built, batches in zip(experiments, folders, names, builts, data, strict=True):
            alone = programs.program(experiment, built)
            evaluate = training.evaluator(experiment, built.graphdef, built.frozen)
            run = stack.enter_context(Running(experiment, folder, built, alone, evaluate, label=name, progress=progress))
            members.append(_Member(run, built, alone, batches, progress))
            members[-1].end_if_done()
        steps = 0
        while left := [member for member in members if member.outcome is None]:
            take_step = many_runs.program(
                [member.run.experiment for member in left], [member.built for member in left], [member.alone for member in left]
            )
            while 2 * sum(member.outcome is None for member in left) > len(left):
                states, metrics = take_step(
                    tuple(member.run.state for member in left),
                    [member.next_batch() for member in left],
                    [member.outcome is None for member in left],
                )
                steps += 1
                stopping = asked_to_stop(steps)
                for member, state, said in zip(left, states, metrics, strict=True):
                    member.took_step(state, said, stopping=stopping)
                going = [member.run.interrupted() for member in left if stopping and member.outcome is None]
                if going:
                    raise Interrupted(f"{len(going)} runs that share a program are saved at this step ({going[0]})")
        return [member.outcome for member in members if member.outcome is not None]
