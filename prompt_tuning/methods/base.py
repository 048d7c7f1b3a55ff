"""What a tuning method is: a frozen dataclass that plugs variables into a model's sockets and says which variables are trained.

Adding a method is adding one file with such a class and one gin file that names it; nothing else names it.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.trainable import Sources, Which


class Method(Protocol):
    """The contract of a tuning method; `prompt.py` is the example to read."""

    @property
    def layout(self) -> PromptLayout:
        """Where prompt vectors stand in the sequences; an empty layout for methods without a prompt."""

    @property
    def trainable(self) -> Which:
        """Which parameters are trained: `Tunable` for all that methods add, or `Matching` patterns of names."""

    def attach(self, model: nnx.Module, key: jax.Array, *, vocabulary: Any) -> Sources:
        """Fills sockets of `model` in place with `Tunable` variables, and says where each value came from, by name.

        Draws initial values from `key` alone, so that a method never changes the base's. Must run on an abstract model too: shapes
        may not depend on values.
        """


def rate_factors(method: Method) -> Mapping[str, float]:
    """What the learning rate of some parameters is multiplied by: the method's `rate_factors`, regular expression for names -> factor."""
    return getattr(method, "rate_factors", {})
