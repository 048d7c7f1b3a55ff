"""Vocabularies: SentencePiece models and bytes, both with T5's ids (padding 0, EOS 1, unknown 2) and sentinels at the top.

Those of decoder-only models are in `decoder_vocabularies.py`.
"""

import dataclasses
import functools
import os
import pathlib
from typing import TYPE_CHECKING, Any, Protocol

from prompt_tuning import assets
from prompt_tuning.data.features import T5_DELIMITERS, Delimiters
from prompt_tuning.data.plain_vocabularies import ByteValues, Pieces
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio


class Vocabulary(Protocol):
    """The settings of a vocabulary; `load` gives the vocabulary itself, as SeqIO's without TensorFlow (`plain_vocabularies`)."""

    @property
    def delimiters(self) -> Delimiters:
        """The ids that stand beside texts, and so how examples are laid."""
        ...

    def load(self) -> "seqio.Vocabulary":
        """The SeqIO vocabulary."""
        ...


@dataclasses.dataclass(frozen=True)
class SentencePiece:
    """A SentencePiece model.

    Attributes:
      path: a `.model` file; `bundled:world.model` is the vocabulary of the task world.
      extra_ids: sentinels `<extra_id_0>`, `<extra_id_1>`, ... counted down from the top of the vocabulary (T5: 100).
    """

    path: str | None = "bundled:world.model"
    extra_ids: int = 100

    @property
    def delimiters(self) -> Delimiters:
        """T5's."""
        return T5_DELIMITERS

    def load(self) -> "seqio.Vocabulary":
        """The SeqIO vocabulary, read once a process. Raises UserError for a missing or broken file, or ids that are not T5's."""
        if not self.path:
            raise UserError(
                "no vocabulary file is given; wanted the path of a SentencePiece model, as in --gin.VOCABULARY=\"'spiece.model'\""
            )
        path = os.path.abspath(assets.resolve(self.path))
        if not os.path.isfile(path):
            raise UserError(f"vocabulary {self.path}: no such file; wanted a SentencePiece model (.model); mend the path")
        return _load_sentencepiece(path, self.extra_ids, os.stat(path).st_mtime_ns)


@dataclasses.dataclass(frozen=True)
class Bytes:
    """UTF-8 bytes as ByT5 reads them (Xue et al. 2022): byte b has id b + 3; ByT5 itself has 125 extra ids, 384 ids in all."""

    extra_ids: int = 125

    @property
    def delimiters(self) -> Delimiters:
        """T5's."""
        return T5_DELIMITERS

    def load(self) -> "seqio.Vocabulary":
        """The SeqIO vocabulary."""
        return _load_bytes(self.extra_ids)


def delimiters(vocabulary: Any) -> Delimiters:
    """Those of a SeqIO vocabulary: T5's, unless it has its own."""
    return getattr(vocabulary, "delimiters", T5_DELIMITERS)


def sentinel_id(vocabulary: "seqio.Vocabulary", index: int) -> int:
    """The id of sentinel `<extra_id_index>`: they count down from the top of the vocabulary. Raises UserError when there are too few."""
    if index >= vocabulary.extra_ids:
        raise UserError(
            f"span corruption needs sentinel {index}, and the vocabulary has {vocabulary.extra_ids} extra ids; give it more extra_ids"
        )
    return int(vocabulary.vocab_size - 1 - index)


@functools.lru_cache(maxsize=8)
def _load_sentencepiece(path: str, extra_ids: int, modified: int) -> Pieces:
    del modified  # A key of the cache: a file written anew is read anew.

    def make() -> "seqio.Vocabulary":
        import seqio

        return seqio.SentencePieceVocabulary(path, extra_ids=extra_ids)

    try:
        vocabulary = Pieces(pathlib.Path(path).read_bytes(), extra_ids=extra_ids, delimiters=None, make=make)
    except Exception as error:  # The reader raises plain RuntimeError or protobuf's DecodeError.
        raise UserError(
            f"vocabulary {path}: not a readable SentencePiece model ({type(error).__name__}); wanted a .model file; fetch it again"
        ) from error
    ids = (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id)
    if ids != (0, 1, 2):
        raise UserError(
            f"vocabulary {path}: wanted T5's ids padding 0, EOS 1, unknown 2, got {ids}; train it with pad_id=0, eos_id=1, unk_id=2, "
            "or for a decoder-only model take decoder_vocabularies.SentencePiece"
        )
    return vocabulary


@functools.lru_cache(maxsize=8)
def _load_bytes(extra_ids: int) -> ByteValues:
    def make() -> "seqio.Vocabulary":
        import seqio

        return seqio.ByteVocabulary(extra_ids=extra_ids)

    return ByteValues(extra_ids=extra_ids, delimiters=T5_DELIMITERS, make=make)
