"""Per-layer prompts: trained vectors replace, or are added to, what stands at the prompt's positions before each layer.

Code: google-research/prompt-tuning, extended/train/per_layer.py, which places it between prompt tuning (arXiv:2104.08691) and prefix tuning
(arXiv:2101.00190): replacing passes each layer's prompt through the frozen projections, where a prefix is keys and values; adding is near
to the layered deltas of Qin & Eisner 2021 (arXiv:2104.06599).

What this file follows: P = 10 rows in every encoder layer, drawn uniformly; added, they come on top of an ordinary prompt in the embedded
input. A decoder-only model has them in its own layers.

Deviation: the released code has the ordinary prompt where rows are replaced, too. The first layer's rows overwrite it, so that it never
gets a gradient: here it is left out.

Axes: N layers, P prompt length, D model width.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.methods import sites
from prompt_tuning.methods.prompt import File, Initializer, Prompt, Uniform
from prompt_tuning.models.layers import Array, Tunable, at_slots
from prompt_tuning.trainable import Sources


class LayerPrompt(nnx.Module):
    """What stands in the socket `prompt` of the layers: rows [N, P, D], of which each layer sees its own."""

    def __init__(self, rows_NPD: Array, *, adds: bool):
        self.rows = Tunable(rows_NPD, axes=("prompt", "embed"))
        self.adds = adds

    def __call__(self, x_BSD: Array, slots_BS: Array) -> Array:
        """The layer's input [B, S, D]."""
        rows_BSD = at_slots(self.rows[...], jnp.zeros_like(x_BSD), slots_BS)
        return x_BSD + rows_BSD if self.adds else jnp.where((slots_BS >= 0)[..., None], rows_BSD, x_BSD)


@dataclasses.dataclass(frozen=True)
class PerLayerPrompt(Prompt):
    """Soft prompts before every layer; further settings are those of `Prompt`, for the encoder alone.

    Attributes:
      length: P.
      initializer: draws the first values of each layer's rows by themselves.
      combine: the rows `replace` what stands there, or `add` to it.
    """

    length: int = 10
    initializer: Initializer = Uniform()
    combine: Literal["replace", "add"] = "replace"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.combine not in ("replace", "add"):
            raise UserError(f"PerLayerPrompt.combine: wanted 'replace' or 'add', got {self.combine!r}")
        if self.stacks != "encoder":
            raise UserError(f"PerLayerPrompt.stacks: wanted 'encoder', got {self.stacks!r}")
        if isinstance(self.initializer, File):
            raise UserError("PerLayerPrompt.initializer: wanted one that draws rows for each layer, got File, which holds rows for one")

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Fills the layers' sockets, and the embedding's where rows are added."""
        sources: Sources = {}
        if self.combine == "add":
            sources |= super().attach(model, sites.key_for(key, "embed"), vocabulary=vocabulary)
        layers = sites.with_socket(model, "prompt", (".*/layers",), where="PerLayerPrompt", beside="self_attention")
        embedding_VD = model.embed.embedding[...]  # type: ignore[attr-defined]
        for name, layer in layers.items():
            keys = jax.random.split(sites.key_for(key, name), layer.self_attention.norm.scale.shape[0])
            rows = [self.initializer(each, self.length, embedding_VD, vocabulary).astype(jnp.float32) for each in keys]
            layer.prompt = LayerPrompt(jnp.stack(rows), adds=self.combine == "add")
            sources[f"{name}/prompt/rows"] = f"initialiser {self.initializer}"
        return sources
