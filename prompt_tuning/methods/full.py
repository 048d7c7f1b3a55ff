"""Model tuning: all base parameters are trained, or those that patterns name.

Follows Raffel et al. 2020 (arXiv:1910.10683), section 2.4.1, which trains every weight; `patterns` restricts it, as in `("decoder/.*",)`.
"""

import dataclasses
from typing import Any

import jax
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.trainable import Matching, Sources, Which


@dataclasses.dataclass(frozen=True)
class Full:
    """Trains the base model.

    Attributes:
      patterns: regular expressions for whole parameter names; empty trains everything.
    """

    patterns: tuple[str, ...] = ()

    @property
    def layout(self) -> PromptLayout:
        """No prompt."""
        return PromptLayout()

    @property
    def trainable(self) -> Which:
        """All parameters, or those the patterns name."""
        return Matching(tuple(self.patterns)) if self.patterns else nnx.Param

    def attach(self, model: nnx.Module, key: jax.Array, *, vocabulary: Any) -> Sources:
        """Adds nothing."""
        del model, key, vocabulary
        return {}
