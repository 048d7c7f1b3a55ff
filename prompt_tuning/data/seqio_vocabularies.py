"""The vocabularies of decoder-only models as SeqIO knows vocabularies; imports TensorFlow and SeqIO, so import it late."""

import logging
import pathlib
from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf

from prompt_tuning.data.decoder_vocabularies import read_tokenizer
from prompt_tuning.data.features import Delimiters


class SentencePieceVocabulary(seqio.SentencePieceVocabulary):
    """A SentencePiece model with the ids that its file states.

    Attributes:
      delimiters: how its examples are laid.
    """

    def __init__(self, path: str, modified: int, delimiters: Delimiters) -> None:
        del modified
        super().__init__(path, extra_ids=0)
        self.delimiters = delimiters
        absl = logging.getLogger("absl")
        level = absl.level
        absl.setLevel(logging.ERROR)  # SeqIO warns that the ids are not T5's, which is known here.
        try:
            self.load_model()
        finally:
            absl.setLevel(level)

    @property
    def pad_id(self) -> int:
        """What fills rows."""
        return self.delimiters.pad


class TokenizerVocabulary(seqio.Vocabulary):
    """A tokenizer.json: what Hugging Face's fast tokenizers give for texts without special tokens added.

    Attributes:
      delimiters: how its examples are laid.
    """

    def __init__(self, path: str, modified: int, delimiters: Delimiters) -> None:
        super().__init__(extra_ids=0)
        self._tokenizer = read_tokenizer(path, modified)
        self.delimiters = delimiters
        # What tells it from others, as SeqIO's SentencePiece vocabularies have it.
        self.sp_model = pathlib.Path(path).read_bytes()
        self._size = max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def bos_id(self) -> int | None:
        """What begins rows."""
        return self.delimiters.bos

    @property
    def eos_id(self) -> int:
        """What ends texts."""
        return self.delimiters.eos

    @property
    def pad_id(self) -> int:
        """What fills rows."""
        return self.delimiters.pad

    @property
    def unk_id(self) -> None:
        """None: bytes leave nothing unknown."""
        return None

    @property
    def _base_vocab_size(self) -> int:
        return self._size

    def _encode(self, s: str) -> Sequence[int]:
        return self._tokenizer.encode(s, add_special_tokens=False).ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where each token of a text begins and ends, in characters."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    def _decode(self, ids: Sequence[int]) -> str:
        # Rows of an embedding that was padded have no token.
        return self._tokenizer.decode([int(i) for i in ids if i < self._size], skip_special_tokens=True)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        """Ids of a string, or of each of a batch as a ragged tensor."""

        def ids(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = [self._encode(text.decode("utf-8")) for text in texts]
            return np.array([token for row in rows for token in row], np.int32), np.array([len(row) for row in rows], np.int64)

        flat, lengths = tf.numpy_function(ids, [tf.reshape(s, [-1])], [tf.int32, tf.int64], stateful=False)
        flat.set_shape([None])
        lengths.set_shape([None])
        return flat if s.shape.rank == 0 else tf.RaggedTensor.from_row_lengths(flat, lengths)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        def text(rows: np.ndarray) -> np.ndarray:
            texts = [self.decode(row.tolist()).encode("utf-8") for row in rows.reshape(-1, rows.shape[-1])]
            return np.array(texts, object).reshape(rows.shape[:-1])

        found = tf.numpy_function(text, [ids], tf.string, stateful=False)
        found.set_shape(ids.shape[:-1])
        return found
