"""Wayward prompts: soft prompts that solve a task while they stay near a discrete one.

Paper: Khashabi et al. 2022, "Prompt Waywardness: The Curious Case of Discretized Interpretation of Continuous Prompts" (arXiv:2112.08348).
Code: google-research/prompt-tuning, extended/train/wayward.py.

What this file follows: loss + gamma * sum_i ||p_i - d_i||^2 / P, gamma = 0.01, d the embeddings of a discrete prompt; the prompt begins at
d. The division by P is the code's.

d is whatever the initialiser gives: with `String` the embeddings of the text's tokens and of the fallback's, with `SampledVocabulary` those
of tokens drawn. Choose PROMPT_LENGTH as the text's number of tokens for d to be the text alone.

Axes: P prompt length, D model width.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt, PromptRows
from prompt_tuning.models.layers import Array, Fixed
from prompt_tuning.trainable import Sources


class AnchoredRows(PromptRows):
    """Rows that are drawn to where they began."""

    def __init__(self, rows_PD: Array, *, gamma: float):
        super().__init__(rows_PD)
        # A copy: what is trained is donated to each step, and its buffer with it.
        self.anchor = Fixed(jnp.copy(rows_PD), axes=("prompt", "embed"))
        self.gamma = gamma

    def penalty(self, model: nnx.Module, batch: Any, logits_BTV: Array) -> Array:
        """gamma times the mean over rows of the squared distance."""
        del model, batch, logits_BTV
        return self.gamma * jnp.mean(jnp.sum(jnp.square(self.rows[...] - self.anchor[...]), axis=-1))


@dataclasses.dataclass(frozen=True)
class Wayward(Prompt):
    """Soft prompts with a penalty on their way from the first values; further settings are those of `Prompt`.

    Attributes:
      gamma: what the penalty is multiplied by.
    """

    gamma: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma >= 0:
            raise UserError(f"Wayward.gamma: wanted 0 or more, got {self.gamma!r}")

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts the rows and what they are held to into the embedding's socket."""
        sources = super().attach(model, key, vocabulary=vocabulary)
        embed: Any = model.embed  # type: ignore[attr-defined]
        embed.prompt = AnchoredRows(embed.prompt(), gamma=self.gamma)
        return sources | {"embed/prompt/anchor": sources["embed/prompt/rows"]}
