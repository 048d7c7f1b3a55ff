"""An adapter of another program (PEFT, T-Few, ATTEMPT) as a method: the model computes what theirs does, and training goes on from there.

Which there are and what they become: `interop/adapter_files.py`, `interop/peft.py`. The base must be the one that the adapter was made for.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx

from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.interop import adapter_files, peft
from prompt_tuning.methods.base import Method
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources, Which


@dataclasses.dataclass(frozen=True)
class FromPeft:
    """The method of an adapter, with the adapter's values.

    A run that was trained from it reads it again whenever the run is loaded: it must stay where it is.

    Attributes:
      path: a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`), or a `.pt` file of T-Few's IA3 or one of ATTEMPT's prompts.
    """

    path: str = ""

    def __post_init__(self) -> None:
        if not self.path:
            raise UserError(f"FromPeft.path: wanted the path of an adapter, got {self.path!r}; set --gin.ADAPTER=\"'DIR'\"")

    @functools.cached_property
    def adapter(self) -> adapter_files.Adapter:
        """What the path holds."""
        return adapter_files.read(self.path)

    @property
    def layout(self) -> PromptLayout:
        """That of the adapter's prompt."""
        return peft.prompt_layout(self.adapter)

    @property
    def trainable(self) -> Which:
        """What the adapter holds."""
        return Tunable

    def method(self, model: nnx.Module) -> Method:
        """The method that the adapter is of, with its targets in this model."""
        return peft.from_adapter(self.adapter, model)[0]

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Attaches the adapter's method and gives it the adapter's values."""
        method, values = peft.from_adapter(self.adapter, model)
        sources = method.attach(model, key, vocabulary=vocabulary)
        for name, value in values.items():
            variable: Any = functools.reduce(getattr, name.split("/"), model)
            if variable.shape != value.shape:
                raise UserError(
                    f"{self.path}: wanted {list(variable.shape)} for {name}, got {list(value.shape)}; "
                    "give the base the adapter was made for"
                )
            variable.set_value(jnp.asarray(value))
        return sources | dict.fromkeys(values, f"adapter {self.path}")
