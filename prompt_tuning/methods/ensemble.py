"""Several trained prompts on one frozen model, for an ensemble that answers in one pass.

Paper: Lester, Al-Rfou, Constant 2021 (arXiv:2104.08691), section 6: one batch holds an example once with each prompt. The prompts are laid
out as those of so many tasks, so that a row's slots say whose prompt it takes (`data.features`). `prompt_tuning.ensemble` asks them and
counts their votes.

Axes: N prompts, P prompt length, D model width.
"""

import dataclasses
import os
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import PromptRows, load_npy
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources, Which


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Prompts of `.npy` files [P, D], such as runs' `prompt.npy`, all of one length and for the encoder's input.

    Attributes:
      paths: N files.
      placement: of each; see `PromptLayout`.
    """

    paths: tuple[str, ...] = ()
    placement: Literal["before", "after_first", "suffix"] = "before"

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", (self.paths,) if isinstance(self.paths, str) else tuple(self.paths))
        if not self.paths:
            raise UserError("Ensemble.paths is empty; wanted .npy files of prompts, as in ('runs/a/prompt.npy', 'runs/b/prompt.npy')")

    @property
    def layout(self) -> PromptLayout:
        """The length of the first file, once a member."""
        return PromptLayout(encoder_length=_length(self.paths[0]), placement=self.placement, tasks=len(self.paths))

    @property
    def trainable(self) -> Which:
        """The prompts."""
        return Tunable

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts all rows [N * P, D] into the embedding's socket. Raises UserError for a file that does not fit."""
        del key, vocabulary
        embed: Any = model.embed  # type: ignore[attr-defined]
        shape = (_length(self.paths[0]), embed.embedding.shape[1])
        embed.prompt = PromptRows(jnp.asarray(np.concatenate([load_npy(path, shape) for path in self.paths])))
        return {"embed/prompt/rows": ", ".join(self.paths)}


def _length(path: str) -> int:
    """The rows of a prompt file."""
    if not os.path.isfile(path):
        raise UserError(f"prompt file {path!r}: no such file; wanted a .npy array [prompt length, model width]")
    try:
        shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
    except (ValueError, OSError, EOFError, AttributeError) as error:
        raise UserError(f"prompt file {path!r} is not a readable .npy array ({error}); save it with numpy.save") from error
    if len(shape) != 2 or not shape[0]:
        raise UserError(f"prompt file {path!r}: wanted an array [prompt length, model width], got shape {list(shape)}")
    return int(shape[0])
