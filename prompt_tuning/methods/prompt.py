"""Prompt tuning: P trained vectors stand among the embedded inputs of a frozen model.

Paper: Lester, Al-Rfou, Constant 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning" (arXiv:2104.08691).
Code: google-research/prompt-tuning.

What this file follows: prompt [P, D] in float32, put before the embedded encoder input ahead of input dropout; prompt and input see each
other freely; relative positions count the prompt; cross-attention sees prompt and input; the decoder has none (section 2). Initialisations
of section 3.2 and of the released code: uniform, sampled vocabulary, class labels; string and file from the code.

Where it goes further: any placement (after the first token, suffix), prompts in the decoder or in both stacks. With prompts in both, the
encoder's rows come first in the one array [P_encoder + P_decoder, D]; each stack's rows are initialised by themselves.

`paper | released` switches: the paper draws the uniform initialisation from [-0.5, 0.5], the released `uniform(0.5)` from [0, 0.5).

Axes: P prompt length, D model width, V vocabulary.
"""

import dataclasses
import os
import zipfile
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from prompt_tuning.data.features import PLACEMENTS, Placement, PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.models.layers import Array, Tunable
from prompt_tuning.trainable import Sources, Which


class Initializer(Protocol):
    """Draws the first values of a prompt."""

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows [P, D], float32, of `length` P, for a model with this embedding."""


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Uniform noise: `paper` draws from [-scale, scale], `released` from [0, scale)."""

    scale: float = 0.5
    variant: Literal["paper", "released"] = "paper"

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows of noise."""
        del vocabulary
        low = {"paper": -self.scale, "released": 0.0}.get(self.variant)
        if low is None:
            raise UserError(f"Uniform.variant: wanted 'paper' or 'released', got {self.variant!r}")
        return jax.random.uniform(key, (length, embedding_VD.shape[1]), jnp.float32, low, self.scale)


@dataclasses.dataclass(frozen=True)
class SampledVocabulary:
    """Embeddings of tokens drawn without replacement from the `most_common` first ids.

    The paper's 5,000 most common tokens (section 3.2): SentencePiece numbers its pieces by frequency.
    """

    most_common: int = 5000

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows of the embedding."""
        del vocabulary
        candidates = min(self.most_common, embedding_VD.shape[0])
        if length > candidates:
            raise UserError(
                f"SampledVocabulary: cannot draw {length} different tokens from the {candidates} most common; "
                "raise most_common or shorten the prompt"
            )
        ids = jax.random.choice(key, candidates, (length,), replace=False)
        return embedding_VD[ids].astype(jnp.float32)


@dataclasses.dataclass(frozen=True)
class ClassLabels:
    """Row i is the mean of the embeddings of label i's subwords; rows past the labels come from `fallback` (section 3.2)."""

    labels: tuple[str, ...] = ()
    fallback: Initializer = SampledVocabulary()

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows of mean embeddings."""
        if not self.labels:
            raise UserError("ClassLabels.labels is empty; wanted the label words, as in ('positive', 'negative')")
        rows = []
        for label in self.labels[:length]:
            ids = list(vocabulary.encode(label))
            if not ids:
                raise UserError(f"ClassLabels: label {label!r} has no tokens in this vocabulary")
            rows.append(embedding_VD[np.array(ids)].astype(jnp.float32).mean(axis=0))
        return _fill_up(jnp.stack(rows), self.fallback, key, length, embedding_VD, vocabulary)


@dataclasses.dataclass(frozen=True)
class String:
    """The token embeddings of a text; rows past its end come from `fallback`, and a longer text is cut."""

    text: str = ""
    fallback: Initializer = SampledVocabulary()

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows of the embedding."""
        ids = list(vocabulary.encode(self.text))[:length]
        if not ids:
            raise UserError(f"String.text {self.text!r} has no tokens in this vocabulary; wanted a text, as in 'Classify the review'")
        return _fill_up(embedding_VD[np.array(ids)].astype(jnp.float32), self.fallback, key, length, embedding_VD, vocabulary)


@dataclasses.dataclass(frozen=True)
class File:
    """Rows of a `.npy` file [P, D], such as the released prompts or a run's `prompt.npy`; with another length it is refused."""

    path: str = ""

    def __call__(self, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
        """Rows of the file. Raises UserError for a file that is missing, unreadable or of another shape."""
        del key, vocabulary
        return jnp.asarray(load_npy(self.path, (length, embedding_VD.shape[1])))


def load_npy(path: str, shape: tuple[int, int]) -> np.ndarray:
    """A prompt file as float32. Raises UserError where it is missing, not an array of finite numbers, or not of `shape`."""
    if not os.path.isfile(path):
        raise UserError(f"prompt file {path!r}: no such file; wanted a .npy array of shape {list(shape)}; set File.path")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"prompt file {path!r} is not a readable .npy array ({error}); save it with numpy.save") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        got = values.dtype if isinstance(values, np.ndarray) else "an archive of arrays"
        raise UserError(f"prompt file {path!r}: wanted an array of floating numbers, got {got}; save it with numpy.save")
    if values.shape != shape:
        raise UserError(
            f"prompt file {path!r}: wanted shape {list(shape)} (prompt length, model width), got {list(values.shape)}; "
            "set PROMPT_LENGTH or choose the model it was made for"
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if bad := int((~np.isfinite(values)).sum()):
        raise UserError(f"prompt file {path!r}: wanted finite numbers, got {bad} that are not; train or copy it again")
    return values


def _fill_up(rows: Array, fallback: Initializer, key: Array, length: int, embedding_VD: Array, vocabulary: Any) -> Array:
    missing = length - rows.shape[0]
    if missing == 0:
        return rows
    return jnp.concatenate([rows, fallback(key, missing, embedding_VD, vocabulary)])


class PromptRows(nnx.Module):
    """What stands in the socket `Embed.prompt`: the rows that slots name."""

    def __init__(self, rows_PD: Array):
        self.rows = Tunable(rows_PD, axes=("prompt", "embed"))

    def __call__(self) -> Array:
        """The rows [P, D]."""
        return self.rows[...]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Soft prompts in the embedded inputs.

    Attributes:
      length: rows P in each stack that has a prompt.
      initializer: draws the first values.
      stacks: which stacks have a prompt.
      placement: `before` the input, `after_first` token, `suffix`, or `first` of all, BOS too; see `PromptLayout`.
    """

    length: int = 100
    initializer: Initializer = SampledVocabulary()
    stacks: Literal["encoder", "decoder", "both"] = "encoder"
    placement: Placement = "before"

    def __post_init__(self) -> None:
        if not isinstance(self.length, int) or self.length < 1:
            raise UserError(f"Prompt.length: wanted 1 or more, got {self.length!r}; set PROMPT_LENGTH")
        if self.stacks not in ("encoder", "decoder", "both"):
            raise UserError(f"Prompt.stacks: wanted 'encoder', 'decoder' or 'both', got {self.stacks!r}")
        if self.placement not in PLACEMENTS:
            raise UserError(f"Prompt.placement: wanted one of {list(PLACEMENTS)}, got {self.placement!r}")

    @property
    def layout(self) -> PromptLayout:
        """Lengths and placement."""
        return PromptLayout(
            encoder_length=self.length if self.stacks != "decoder" else 0,
            decoder_length=self.length if self.stacks != "encoder" else 0,
            placement=self.placement,
        )

    @property
    def trainable(self) -> Which:
        """The prompt alone."""
        return Tunable

    def attach(self, model: nnx.Module, key: Array, *, vocabulary: Any) -> Sources:
        """Puts the prompt into the embedding's socket."""
        embed: Any = getattr(model, "embed", None)
        if embed is None:
            raise UserError("Prompt needs a model with a token embedding")
        copies = 2 if self.stacks == "both" else 1
        embedding_VD = embed.embedding[...]
        if isinstance(self.initializer, File):
            rows_PD = self.initializer(key, copies * self.length, embedding_VD, vocabulary)
        else:
            keys = jax.random.split(key, copies)
            rows_PD = jnp.concatenate([self.initializer(each, self.length, embedding_VD, vocabulary) for each in keys])
        embed.prompt = PromptRows(rows_PD.astype(jnp.float32))
        return {"embed/prompt/rows": f"initialiser {self.initializer}"}
