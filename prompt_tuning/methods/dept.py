"""DePT: a shorter soft prompt, and a low-rank change of the embedded input by position, which learn at two speeds.

Paper: Shi & Lipani 2024, "DePT: Decomposed Prompt Tuning for Parameter-Efficient Fine-tuning" (arXiv:2309.05173).
Code: ZhengxiangShi/DePT.

What this file follows: token number i of the input is embedded as E + (A B)_i, A [I, R] for inputs of up to I tokens and B [R, D]
(section 2.2); a prompt of P rows stands before it; where a plain prompt has m rows, P and R are chosen such that P D + (I + D) R is m D.
A is drawn uniformly from +-R^-0.5 and B is zero, as in the released code; its scaling of A B is left to the learning rate.

The prompt learns at the optimizer's rate, A and B at `change_rate_factor` times that: the paper searches 3e-1 to 5e-1 for the prompt and
1e-4 to 5e-3 for the change (section 3.1).

Deviation: tokens beyond I keep their embeddings. For encoder-decoders.

Axes: B batch, S source length, I most tokens of an input, P prompt length, D model width, R rank.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning import fields
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import Prompt, PromptRows
from prompt_tuning.methods.prompt_networks import uniform
from prompt_tuning.models.layers import Array, Tunable, at_slots
from prompt_tuning.models.t5 import T5
from prompt_tuning.trainable import Sources


class DecomposedPrompt(PromptRows):
    """What stands in the socket `Embed.prompt`: the rows, and the change of the tokens."""

    def __init__(self, rows_PD: Array, key: Array, *, input_length: int, rank: int):
        super().__init__(rows_PD)
        self.left = Tunable(uniform(key, (input_length, rank), rank), axes=("positions", "rank"))
        self.right = Tunable(jnp.zeros((rank, rows_PD.shape[1]), jnp.float32), axes=("rank", "embed"))

    def among(self, x_BSD: Array, slots_BS: Array, segment_ids_BS: Array) -> Array:
        """The sequence with its tokens changed and the rows in their slots."""
        change_ID = (self.left[...] @ self.right[...]).astype(x_BSD.dtype)
        positions_BS = token_positions(slots_BS, segment_ids_BS)
        positions_BS = jnp.where(positions_BS < change_ID.shape[0], positions_BS, -1)
        return at_slots(self(), x_BSD + at_slots(change_ID, jnp.zeros_like(x_BSD), positions_BS), slots_BS)


def token_positions(slots_BS: Array, segment_ids_BS: Array) -> Array:
    """The number of each token among those of its segment, from 0; -1 for prompt slots and padding."""
    is_token_BS = (slots_BS < 0) & (segment_ids_BS > 0)
    before_BS = jnp.cumsum(is_token_BS, axis=1, dtype=jnp.int32) - is_token_BS
    starts_BS = jnp.diff(segment_ids_BS, axis=1, prepend=-1) != 0
    first_BS = jax.lax.cummax(jnp.where(starts_BS, before_BS, 0), axis=1)
    return jnp.where(is_token_BS, before_BS - first_BS, -1)


@dataclasses.dataclass(frozen=True)
class DePT(Prompt):
    """A soft prompt and a low-rank change of the input's embeddings; further settings are those of `Prompt`, for the encoder alone.

    Attributes:
      length: P; the paper takes 40 or 60 where a plain prompt has 100.
      input_length: I, tokens.
      rank: R.
      change_rate_factor: the learning rate of A and B over that of the prompt.
    """

    length: int = 60
    input_length: int = 256
    rank: int = 30
    change_rate_factor: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("input_length", "rank"):
            fields.check_count(f"DePT.{name}", getattr(self, name))
        if not self.change_rate_factor >= 0:
            raise UserError(f"DePT.change_rate_factor: wanted 0 or more, got {self.change_rate_factor!r}")
        if self.stacks != "encoder":
            raise UserError(f"DePT.stacks: wanted 'encoder', got {self.stacks!r}")

    @property
    def rate_factors(self) -> Mapping[str, float]:
        """Those of A and B."""
        return {"embed/prompt/(left|right)": self.change_rate_factor}

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts prompt and change into the embedding's socket."""
        if not isinstance(model, T5):
            raise UserError(f"DePT changes what an encoder reads; wanted an encoder-decoder, got {type(model).__name__}")
        rows_key, change_key = jax.random.split(key)
        sources = super().attach(model, rows_key, vocabulary=vocabulary)
        embed: Any = model.embed
        embed.prompt = DecomposedPrompt(embed.prompt(), change_key, input_length=self.input_length, rank=self.rank)
        drawn = {"left": "initialiser uniform, +-rank^-0.5", "right": "initialiser zeros"}
        return sources | {f"embed/prompt/{name}": source for name, source in drawn.items()}
