"""Vocabularies of decoder-only models: SentencePiece models with ids of their own, and Hugging Face's tokenizer.json.

Their examples are laid as one sequence: [BOS] [prompt] inputs targets EOS (`features.py`).
"""

import dataclasses
import functools
import os
import pathlib
from typing import TYPE_CHECKING, Any

from prompt_tuning import assets
from prompt_tuning.data.features import Delimiters
from prompt_tuning.data.plain_vocabularies import Pieces, TokenizerFile
from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio


@dataclasses.dataclass(frozen=True)
class SentencePiece:
    """A SentencePiece model whose file says which ids are EOS, BOS and padding (Llama 2, Mistral 7B, Gemma; llama2.c's .model files).

    Attributes:
      path: a `.model` file.
      bos: whether rows begin with BOS; None: if the file has one.
    """

    path: str | None = None
    bos: bool | None = None

    @property
    def delimiters(self) -> Delimiters:
        """Of the file; without an id for padding EOS fills rows. Raises UserError as `load`."""
        pieces = _pieces(*_file(self.path, "a SentencePiece model (.model)"))
        eos, bos, pad = pieces.eos_id(), pieces.bos_id(), pieces.pad_id()
        if eos < 0:
            raise UserError(f"vocabulary {self.path}: has no end token (EOS); wanted a SentencePiece model with eos_id")
        if self.bos and bos < 0:
            raise UserError(f"vocabulary {self.path}: has no BOS to begin rows with; set bos = False")
        return _marks(eos, bos if self.bos or (self.bos is None and bos >= 0) else None, pad if pad >= 0 else None)

    def load(self) -> "seqio.Vocabulary":
        """The SeqIO vocabulary, read once a process. Raises UserError for a missing or broken file, or one without EOS or BOS asked for."""
        return _loaded_pieces(_file(self.path, "a SentencePiece model (.model)"), self.delimiters)


@dataclasses.dataclass(frozen=True)
class TokenizerJson:
    """A tokenizer.json of Hugging Face's `tokenizers` (GPT-2, Llama 3, Qwen, DeepSeek). It does not say what its special tokens are for.

    Attributes:
      path: a `tokenizer.json` file.
      eos: the token that ends a text; there must be one.
      bos: the token that begins a row; None for models that have none.
      pad: the token that fills rows; None for EOS.
    """

    path: str | None = None
    eos: str | None = "<|endoftext|>"
    bos: str | None = None
    pad: str | None = None

    @property
    def delimiters(self) -> Delimiters:
        """The ids of the three tokens. Raises UserError as `load`."""
        tokenizer = self.read()
        ids: dict[str, Any] = {}
        for name in ("eos", "bos", "pad"):
            token = getattr(self, name)
            ids[name] = None if token is None else tokenizer.token_to_id(token)
            if ids[name] is None and (token is not None or name == "eos"):
                added = [each.content for _, each in sorted(tokenizer.get_added_tokens_decoder().items())]
                raise UserError(f"vocabulary {self.path}: wanted {name} to be one of its tokens, as of {added[:8]}, got {token!r}")
        return _marks(**ids)

    def read(self) -> Any:
        """The `tokenizers.Tokenizer`. Raises UserError for a missing or broken file."""
        return read_tokenizer(*_file(self.path, "a tokenizer.json"))

    def load(self) -> "seqio.Vocabulary":
        """The SeqIO vocabulary, read once a process. Raises UserError for a missing or broken file, or one without a token named."""
        return _loaded_tokenizer(_file(self.path, "a tokenizer.json"), self.delimiters)


def _marks(eos: int, bos: int | None, pad: int | None) -> Delimiters:
    return Delimiters(eos=eos, pad=eos if pad is None else pad, start=None, bos=bos, inputs_end=False)


def _file(path: str | None, wanted: str) -> tuple[str, int]:
    """The absolute path of a file that is there, and when it was changed: a file written anew is read anew."""
    if not path:
        raise UserError(f"no vocabulary file is given; wanted the path of {wanted}, as in --gin.VOCABULARY=\"'FILE'\"")
    found = os.path.abspath(assets.resolve(path))
    if not os.path.isfile(found):
        raise UserError(f"vocabulary {path}: no such file; wanted {wanted}; mend the path")
    return found, os.stat(found).st_mtime_ns


@functools.lru_cache(maxsize=8)
def _pieces(path: str, modified: int) -> Any:
    del modified
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_file=path)
    except RuntimeError as error:
        raise UserError(f"vocabulary {path}: not a readable SentencePiece model; wanted a .model file; fetch it again") from error


@functools.lru_cache(maxsize=8)
def read_tokenizer(path: str, modified: int) -> Any:
    """The `tokenizers.Tokenizer` of a file. Raises UserError for one that cannot be read."""
    del modified
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_file(path)
    except Exception as error:  # The reader raises plain Exception.
        raise UserError(f"vocabulary {path}: not a readable tokenizer.json ({error}); fetch it again") from error
    # Texts are cut and rows filled elsewhere.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@functools.lru_cache(maxsize=8)
def _loaded_pieces(file: tuple[str, int], delimiters: Delimiters) -> Pieces:
    make = functools.partial(_in_seqio, "SentencePieceVocabulary", file, delimiters)
    return Pieces(pathlib.Path(file[0]).read_bytes(), extra_ids=0, delimiters=delimiters, make=make)


@functools.lru_cache(maxsize=8)
def _loaded_tokenizer(file: tuple[str, int], delimiters: Delimiters) -> TokenizerFile:
    make = functools.partial(_in_seqio, "TokenizerVocabulary", file, delimiters)
    return TokenizerFile(file[0], read_tokenizer(*file), delimiters=delimiters, make=make)


def _in_seqio(kind: str, file: tuple[str, int], delimiters: Delimiters) -> "seqio.Vocabulary":
    from prompt_tuning.data import seqio_vocabularies

    return getattr(seqio_vocabularies, kind)(*file, delimiters)
