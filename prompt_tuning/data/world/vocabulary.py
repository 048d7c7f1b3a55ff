"""Trains the SentencePiece vocabulary of the task world: `python -m prompt_tuning.data.world.vocabulary --output=world.model`.

Byte-pair pieces with T5's ids (padding 0, EOS 1, unknown 2, no start token). The unigram model of T5 cuts common words of so small a
lexicon apart ("tha t"); byte pairs keep them whole. The same arguments give the same file.
"""

import argparse
import io
import itertools
import pathlib
import sys
from collections.abc import Iterable

TOTAL_IDS = 2048
EXTRA_IDS = 100
DOCUMENTS = 200_000
_ASCII = "".join(map(chr, range(33, 127)))


def train(documents: Iterable[str], *, vocabulary_size: int = TOTAL_IDS - EXTRA_IDS) -> bytes:
    """The bytes of a SentencePiece model of at most `vocabulary_size` pieces, sentinels not counted.

    One thread and no shuffling, so that the model depends on the documents alone. Every printable ASCII character is a piece.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(documents),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary_size,
        hard_vocab_limit=False,
        required_chars=_ASCII,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    return model.getvalue()


def main(arguments: list[str] | None = None) -> None:
    """Writes the vocabulary."""
    parser = argparse.ArgumentParser(description="Train the SentencePiece vocabulary of the task world.")
    parser.add_argument("--output", required=True, type=pathlib.Path, help="the .model file to write")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the documents (default 0)")
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help=f"how many documents to train on (default {DOCUMENTS})")
    parser.add_argument("--ids", type=int, default=TOTAL_IDS, help=f"ids in all, {EXTRA_IDS} sentinels included (default {TOTAL_IDS})")
    flags = parser.parse_args(arguments)
    from prompt_tuning.data.world import corpus

    model = train(itertools.islice(corpus.documents("train", seed=flags.seed), flags.documents), vocabulary_size=flags.ids - EXTRA_IDS)
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_bytes(model)
    print(f"wrote {flags.output}: {len(model)} bytes, at most {flags.ids} ids with {EXTRA_IDS} sentinels", file=sys.stderr)


if __name__ == "__main__":
    main()
