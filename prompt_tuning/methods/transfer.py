"""Prompts begun from prompts of other tasks, and which of them to take.

Paper: Vu et al. 2022, "SPoT: Better Frozen Model Adaptation through Soft Prompt Transfer" (arXiv:2110.07904).

What this file follows: a target task's prompt starts from a source task's (section 2), from the mean of several, or from a mean weighted
by how similar their tasks are to the target's, of the most similar ones (section 3.3); similarity is the cosine of the two prompts averaged
over their rows, or the mean cosine over all pairs of rows (section 3.2). The target's prompt that is compared is one trained on the target
for a while.

Axes: P prompt length (those compared may differ), D model width, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import load_npy
from prompt_tuning.models.layers import Array


def similarity(first_PD: np.ndarray, second_PD: np.ndarray, *, of: Literal["mean_rows", "pairs_of_rows"] = "mean_rows") -> float:
    """How alike two prompts are, -1..1: the cosine of their mean rows, or the mean cosine over all pairs of rows."""
    if of not in ("mean_rows", "pairs_of_rows"):
        raise UserError(f"similarity: wanted 'mean_rows' or 'pairs_of_rows', got {of!r}")
    rows = [np.asarray(each, np.float64) for each in (first_PD, second_PD)]
    if of == "mean_rows":
        rows = [each.mean(axis=0, keepdims=True) for each in rows]
    first, second = (each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-12) for each in rows)
    return float((first @ second.T).mean())


def ranked(
    target_PD: np.ndarray, sources: Mapping[str, np.ndarray], *, of: Literal["mean_rows", "pairs_of_rows"] = "mean_rows"
) -> list[tuple[str, float]]:
    """Source tasks and their similarities to the target, the most similar first; equals in the order of their names."""
    scored = ((name, similarity(target_PD, prompt, of=of)) for name, prompt in sources.items())
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


@dataclasses.dataclass(frozen=True)
class Transfer:
    """An initialiser of `Prompt`: the weighted mean of prompts in `.npy` files [P, D], such as runs' `prompt.npy`.

    Attributes:
      paths: the files.
      weights: one for each, as their similarities, not negative; empty for equal ones.
    """

    paths: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", (self.paths,) if isinstance(self.paths, str) else tuple(self.paths))
        object.__setattr__(self, "weights", tuple(self.weights))
        if not self.paths:
            raise UserError("Transfer.paths is empty; wanted .npy files of prompts, as in ('runs/a/prompt.npy',)")
        if self.weights and (len(self.weights) != len(self.paths) or min(self.weights) < 0 or not sum(self.weights) > 0):
            raise UserError(f"Transfer.weights: wanted {len(self.paths)} numbers, none negative and not all 0, got {list(self.weights)}")

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows [P, D], float32. Raises UserError for a file that is missing, unreadable or of another shape."""
        del key, vocabulary
        prompts = np.stack([load_npy(path, (length, embedding_VD.shape[1])) for path in self.paths])
        return jnp.asarray(np.average(prompts, axis=0, weights=self.weights or None).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Retrieved:
    """An initialiser of `Prompt`: the mean of the source prompts most similar to a prompt of the target, weighted by how similar they are.

    Similarities below 0 count as 0; where none is above, those chosen weigh alike.

    Attributes:
      target: a `.npy` file [P, D] of a prompt trained on the target for a while.
      paths: those of the sources.
      top: how many sources are taken.
      of: see `similarity`.
    """

    target: str = ""
    paths: tuple[str, ...] = ()
    top: int = 3
    of: Literal["mean_rows", "pairs_of_rows"] = "mean_rows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", (self.paths,) if isinstance(self.paths, str) else tuple(self.paths))
        if not self.target or not self.paths:
            raise UserError("Retrieved: wanted .npy files of the target's prompt and of sources'; set Retrieved.target and Retrieved.paths")
        if not 1 <= self.top <= len(self.paths):
            raise UserError(f"Retrieved.top: wanted 1 to {len(self.paths)}, the number of sources, got {self.top}")

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows [P, D], float32. Raises UserError as `Transfer`."""
        shape = (length, embedding_VD.shape[1])
        chosen = ranked(load_npy(self.target, shape), {path: load_npy(path, shape) for path in self.paths}, of=self.of)[: self.top]
        weights = tuple(max(0.0, score) for _, score in chosen)
        return Transfer(tuple(path for path, _ in chosen), weights if any(weights) else ())(key, length, embedding_VD, vocabulary)
