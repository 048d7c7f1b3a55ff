"""What a base could do before it was tuned: go on with prose like that which it was pretrained on. What it does worse, it has forgotten."""

import functools
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments.points import Point

PASSAGES = 200
# As in configs/runs/pretrain_lm.gin.
_INPUT_LENGTH, _TARGET_LENGTH = 64, 40


def loss(point: Point, experiment: Any, folder: pathlib.Path) -> Mapping[str, Mapping[str, float]]:
    """Nats per token of the last sentence of held-out passages, given what comes before; with what was tuned in its place."""
    from prompt_tuning import evaluate, evaluation

    workdir, checkpoint = (str(folder), "best") if point.trained else (None, "base")
    loaded = evaluate.load(experiment, workdir=workdir, checkpoint=checkpoint)
    vocabulary = experiment.vocabulary.load()
    examples = [
        {"inputs": (*vocabulary.encode(before), 1), "targets": (*vocabulary.encode(last), 1)} for before, last in split_passages(PASSAGES)
    ]
    lengths = evaluation.Lengths(_INPUT_LENGTH, _TARGET_LENGTH, experiment.layout)
    sums, counts = evaluation.log_likelihoods(loaded.parts, examples, lengths=lengths, batch_size=50)
    return {"passages": {"nats_per_token": float(-sums.sum() / counts.sum())}}


@functools.cache
def split_passages(count: int) -> tuple[tuple[str, str], ...]:
    """So many passages of the validation split that have two sentences or more: all but the last sentence, and the last."""
    from prompt_tuning.data.world import corpus

    parted = (passage.rstrip(".").rpartition(". ") for passage in corpus.documents("validation", seed=0))
    return tuple(itertools.islice(((f"{before}.", f"{last}.") for before, _, last in parted if before), count))
