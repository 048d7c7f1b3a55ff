"""From places in a text to tokens: which tokens of a target the loss is on, where it is on parts of the target only."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from prompt_tuning.errors import UserError

if TYPE_CHECKING:
    import seqio

Spans = Sequence[tuple[int, int]]


def loss_mask(vocabulary: "seqio.Vocabulary", text: str, spans: Spans) -> np.ndarray:
    """Whether the loss is on each token of a target, EOS included: bool [T].

    A token counts where a character of it lies in one of the spans (as in transformers' assistant masks); one that stands for no character
    where it is followed by one that lies in them. EOS counts where the last span reaches the end of the text.

    Args:
      vocabulary: of the target.
      text: the target.
      spans: begin and end, counted in characters.
    """
    offsets = token_offsets(vocabulary, text)
    counted = [any(begin < stop and max(end, begin + 1) > start for start, stop in spans) for begin, end in offsets]
    return np.array([*counted, max(stop for _, stop in spans) >= len(text)])


def token_offsets(vocabulary: "seqio.Vocabulary", text: str) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends, in characters. Raises UserError for a vocabulary that cannot tell."""
    if hasattr(vocabulary, "offsets"):
        return list(vocabulary.offsets(text))
    kind = type(vocabulary).__mro__
    if any(each.__name__ == "ByteVocabulary" for each in kind):
        return [(place, place + 1) for place, letter in enumerate(text) for _ in letter.encode()]
    if any(each.__name__ == "SentencePieceVocabulary" for each in kind):
        return [(int(begin), int(end)) for begin, end in vocabulary.tokenizer.encode(text, return_type="offset_mapping")["offsets"]]
    raise UserError(
        f"a {type(vocabulary).__name__} can't tell which characters a token stands for, wanted one with `offsets(text)`; "
        "train on the last response alone (last_only)"
    )


def of_rows(vocabulary: "seqio.Vocabulary", rows: Iterable[tuple[str, Spans, int]], *, title: str) -> np.ndarray:
    """The masks of tokenized targets, end to end: bool [all target tokens].

    Args:
      vocabulary: of the targets.
      rows: of each row the target, its spans (empty: the loss is on all of it), and the number of its tokens, EOS included.
      title: the task's, for errors.

    Raises UserError, naming the row, where the tokens that can be told apart are not those of the row.
    """
    found = []
    for row, (text, spans, count) in enumerate(rows):
        mask = loss_mask(vocabulary, text, spans) if len(spans) else np.ones(count, bool)
        if len(mask) != count:
            raise UserError(
                f"task {title}: example {row} has {count} target tokens, of which {len(mask)} can be told apart; "
                "train on the last response alone (last_only)"
            )
        found.append(mask)
    return np.concatenate(found)
