"""Norm tuning: only the scales of the layer norms, and biases where the base has any, are trained.

Papers: Ben Zaken et al. 2022, "BitFit" (arXiv:2106.10199), trains the biases. A T5 has none: what is left of it there is the scales of its
layer norms, the part of BitFit's parameters that a T5 shares with a BERT, trained alone as by Zhao et al. 2024, "Tuning LayerNorm in
Attention" (arXiv:2312.11420).
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.trainable import Matching, Sources, Which


@dataclasses.dataclass(frozen=True)
class Norms:
    """Trains layer norms and biases of the base.

    Attributes:
      patterns: regular expressions for whole parameter names.
    """

    patterns: tuple[str, ...] = (r".*norm/scale|.*(^|/)bias",)

    @property
    def layout(self) -> PromptLayout:
        """No prompt."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """What the patterns name."""
        return Matching(tuple(self.patterns))

    def attach(self, model: nnx.Module, key: jax.Array, *, vocabulary: Any) -> Sources:
        """Adds nothing."""
        del model, key, vocabulary
        return {}
