"""Vocabularies without TensorFlow: SentencePiece models, bytes, and Hugging Face's tokenizer.json.

They answer as SeqIO's vocabularies do, with the same ids and texts, and tokenize many texts at once. What else SeqIO's know, as ids inside
TensorFlow, is asked of SeqIO's own (`seqio`), and its import takes seconds.
"""

import functools
import pathlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from prompt_tuning.data.features import Delimiters

# SentencePiece does not load two models at a time.
_LOADING = threading.Lock()


class Plain:
    """A vocabulary as SeqIO's.

    Attributes:
      kind: the class that it is of in SeqIO.
      delimiters: the ids that stand beside texts.
      vocab_size: ids, extra ids included.
      extra_ids: sentinels at the top.
      eos_id, pad_id, bos_id, unk_id: None where it has none.
      sp_model: the content of its file; None for bytes.
    """

    kind = ""
    sp_model: bytes | None = None

    def __init__(
        self,
        *,
        delimiters: Delimiters,
        vocab_size: int,
        extra_ids: int,
        bos_id: int | None,
        unk_id: int | None,
        make: Callable[[], Any],
    ) -> None:
        self.delimiters, self.vocab_size, self.extra_ids = delimiters, vocab_size, extra_ids
        self.eos_id, self.pad_id, self.bos_id, self.unk_id = delimiters.eos, delimiters.pad, bos_id, unk_id
        self._make = make

    @functools.cached_property
    def seqio(self) -> Any:
        """The same as a `seqio.Vocabulary`."""
        return self._make()

    def __getattr__(self, name: str) -> Any:
        # `encode_tf` and the like. What copies and pickles ask for is no vocabulary's.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.seqio, name)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without EOS."""
        raise NotImplementedError

    def encode_many(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Token ids of each text, without EOS."""
        return [self.encode(text) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids up to the first EOS."""
        known = [int(each) for each in ids]
        if self.eos_id in known:
            known = known[: known.index(self.eos_id) + 1]
        return self._text(known)

    def decode_many(self, rows: Sequence[list[int]]) -> list[str]:
        """The text of each row, as `decode` gives it."""
        return [self.decode(row) for row in rows]

    def _text(self, ids: list[int]) -> str:
        raise NotImplementedError


class Pieces(Plain):
    """A SentencePiece model, with sentinels behind its own pieces."""

    kind = "SentencePieceVocabulary"

    def __init__(self, content: bytes, *, extra_ids: int, delimiters: Delimiters | None, make: Callable[[], Any]) -> None:
        """Of the file's `content`; without delimiters of its own it has T5's with the ids that the file states.

        Raises what SentencePiece and protobuf raise for a broken model.
        """
        import sentencepiece
        from sentencepiece import sentencepiece_model_pb2

        proto: Any = sentencepiece_model_pb2
        model = proto.ModelProto.FromString(content)
        sentinel = proto.ModelProto.SentencePiece.USER_DEFINED
        for index in reversed(range(extra_ids)):
            model.pieces.add(piece=f"▁<extra_id_{index}>", score=0.0, type=sentinel)
        self.sp_model = model.SerializeToString()
        self.tokenizer = sentencepiece.SentencePieceProcessor()
        with _LOADING:
            self.tokenizer.LoadFromSerializedProto(self.sp_model)
        ids = self.tokenizer
        super().__init__(
            delimiters=delimiters or Delimiters(eos=ids.eos_id(), pad=ids.pad_id()),
            vocab_size=ids.GetPieceSize(),
            extra_ids=extra_ids,
            bos_id=ids.bos_id(),
            unk_id=ids.unk_id(),
            make=make,
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without EOS."""
        return list(self.tokenizer.EncodeAsIds(text))

    def encode_many(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Token ids of each text, without EOS, on all cores of the process."""
        return list(self.tokenizer.encode(list(texts), out_type=int)) if texts else []

    def decode_many(self, rows: Sequence[list[int]]) -> list[str]:
        """The text of each row, as `decode` gives it, on all cores of the process."""
        ends = [row.index(self.eos_id) if self.eos_id in row else len(row) for row in rows]
        cut = [row[:end] for row, end in zip(rows, ends, strict=True)]
        if any(max(row, default=0) >= self.vocab_size for row in cut):
            return [self.decode(row) for row in cut]
        return list(self.tokenizer.decode(cut)) if cut else []

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends, in characters."""
        return [(int(begin), int(end)) for begin, end in self.tokenizer.encode(text, return_type="offset_mapping")["offsets"]]

    def _text(self, ids: list[int]) -> str:
        unknown = self.tokenizer.unk_id()
        return str(self.tokenizer.DecodeIds([unknown if each >= self.vocab_size else each for each in ids]))


class ByteValues(Plain):
    """UTF-8 bytes: byte b has id b + 3."""

    kind = "ByteVocabulary"

    def __init__(self, *, extra_ids: int, delimiters: Delimiters, make: Callable[[], Any]) -> None:
        super().__init__(delimiters=delimiters, vocab_size=259 + extra_ids, extra_ids=extra_ids, bos_id=None, unk_id=2, make=make)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without EOS."""
        return [byte + 3 for byte in text.encode()]

    def encode_many(self, texts: Sequence[str]) -> Sequence[Any]:
        """Token ids of each text, without EOS."""
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int32) + 3 for text in texts]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends, in characters."""
        return [(place, place + 1) for place, letter in enumerate(text) for _ in letter.encode()]

    def _text(self, ids: list[int]) -> str:
        return bytes(each - 3 for each in ids if 3 <= each < 259).decode("utf-8", errors="ignore")


class TokenizerFile(Plain):
    """A tokenizer.json: what Hugging Face's fast tokenizers give for texts without special tokens added."""

    kind = "TokenizerVocabulary"

    def __init__(self, path: str, tokenizer: Any, *, delimiters: Delimiters, make: Callable[[], Any]) -> None:
        self.sp_model = pathlib.Path(path).read_bytes()
        self._tokenizer = tokenizer
        size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
        super().__init__(delimiters=delimiters, vocab_size=size, extra_ids=0, bos_id=delimiters.bos, unk_id=None, make=make)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without EOS."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_many(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Token ids of each text, without EOS, on all cores of the process."""
        return [each.ids for each in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends, in characters."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    def _text(self, ids: list[int]) -> str:
        # Rows of an embedding that was padded have no token.
        return str(self._tokenizer.decode([each for each in ids if each < self.vocab_size], skip_special_tokens=True))


def encode_many(vocabulary: Any, texts: Sequence[str]) -> Sequence[Sequence[int]]:
    """Token ids of each text, without EOS, by any vocabulary."""
    return vocabulary.encode_many(texts) if isinstance(vocabulary, Plain) else [vocabulary.encode(text) for text in texts]


def decode_many(vocabulary: Any, rows: Sequence[list[int]]) -> list[str]:
    """The text of each row of token ids up to the first EOS, by any vocabulary."""
    return vocabulary.decode_many(rows) if isinstance(vocabulary, Plain) else [vocabulary.decode(row) for row in rows]


def as_seqio(vocabulary: Any) -> Any:
    """Any vocabulary as a `seqio.Vocabulary`."""
    return vocabulary.seqio if isinstance(vocabulary, Plain) else vocabulary
