"""Several methods on one base, trained together, as a prompt over LoRA.

A method of an earlier run that is to stay as it is belongs into the base instead: fold it in (`lora.merge`, `ia3.merge`) and save that.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods import base
from prompt_tuning.methods.base import Method
from prompt_tuning.models.layers import Tunable
from prompt_tuning.trainable import Matching, Sources, Which


@dataclasses.dataclass(frozen=True)
class Together:
    """Attaches methods one after the other, each with first values of its own.

    Attributes:
      methods: two or more. At most one puts a prompt into the sequences, and each needs sockets that no other fills.
    """

    methods: tuple[Method, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))  # gin gives lists.
        if len(self.methods) < 2:
            raise UserError(
                f"Together.methods: wanted two methods or more, got {len(self.methods)}, as in [@prompt.Prompt(), @lora.Lora()]"
            )
        prompted = [type(method).__name__ for method in self.methods if method.layout != PromptLayout()]
        if len(prompted) > 1:
            raise UserError(f"Together.methods: wanted at most one with a prompt in the sequences, got {' and '.join(prompted)}")
        kinds = {type(method).__name__: method.trainable for method in self.methods}
        if len({isinstance(which, Matching) for which in kinds.values()}) > 1:
            named = ", ".join(name for name, which in kinds.items() if isinstance(which, Matching))
            raise UserError(
                f"Together.methods: {named} names what it trains by patterns and the others do not; such methods do not go together"
            )

    @property
    def layout(self) -> PromptLayout:
        """That of the method with a prompt, if there is one."""
        return next((method.layout for method in self.methods if method.layout != PromptLayout()), PromptLayout())

    @property
    def trainable(self) -> Which:
        """What any of them trains."""
        which = [method.trainable for method in self.methods]
        if all(isinstance(each, Matching) for each in which):
            return Matching(tuple(pattern for each in which if isinstance(each, Matching) for pattern in each.patterns))
        return Tunable if all(each is Tunable for each in which) else nnx.Param

    @property
    def rate_factors(self) -> Mapping[str, float]:
        """Those of all of them."""
        return {pattern: factor for method in self.methods for pattern, factor in base.rate_factors(method).items()}

    def attach(self, model: nnx.Module, key: jax.Array, *, vocabulary: Any) -> Sources:
        """Attaches them in order; a later one sees what an earlier one did to the base's values."""
        sources: Sources = {}
        for number, method in enumerate(self.methods):
            sources |= method.attach(model, jax.random.fold_in(key, number), vocabulary=vocabulary)
        return sources
