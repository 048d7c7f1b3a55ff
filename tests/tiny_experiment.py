"""Experiments small enough to be run many times over, and what they leave behind."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

from prompt_tuning import assembly, checkpoints, programs
from prompt_tuning.data.vocabularies import Bytes
from prompt_tuning.evaluation import Evaluation
from prompt_tuning.experiment import Experiment
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models.t5 import T5Config
from prompt_tuning.optimizers import AdamW
from tests.data.small import Numbered

CONFIG = T5Config(
    vocab_size=384,
    d_model=16,
    d_ff=24,
    num_heads=2,
    d_kv=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    relative_buckets=8,
    relative_max_distance=20,
    unroll_layers=False,
)
PROMPT = Prompt(length=3, initializer=Uniform())
EXPERIMENT = Experiment(
    model=CONFIG,
    vocabulary=Bytes(),
    method=PROMPT,
    data=Numbered(name="n", choices=True),
    optimizer=AdamW(learning_rate=0.05),
    evaluation=Evaluation(batch_size=4),
    allow_random_base=True,
    train_steps=4,
    batch_size=4,
    input_length=6,
    target_length=3,
    eval_steps=2,
    checkpoint_steps=0,
    log_steps=1,
)


def tiny_experiment(**changes: Any) -> Experiment:
    """The tiny experiment with other settings."""
    return dataclasses.replace(EXPERIMENT, **changes)


def metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of `metrics.jsonl`."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def checkpoint_steps(folder: pathlib.Path) -> list[int]:
    """The steps that are kept."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit())


def restored(experiment: Experiment, folder: pathlib.Path, step: int) -> checkpoints.Restored:
    """What a run's checkpoint of a step holds, optimizer state included."""
    base, shapes = _base_and_shapes(experiment)
    with checkpoints.Checkpoints(folder / "checkpoints", base=base, writable=False) as saved:
        return saved.restore(step, *shapes)


@functools.cache
def _base_and_shapes(experiment: Experiment) -> tuple[checkpoints.Base, tuple[Any, Any]]:
    built = assembly.assemble(experiment)
    state = programs.program(experiment, built).state
    return built.base, (state.tuned, state.optimizer_state)
