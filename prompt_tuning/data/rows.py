"""One example as text, before it is tokenized."""

import dataclasses

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class TextRow:
    """One example as text.

    Attributes:
      inputs: what the model reads.
      targets: what it should write.
      answer_choices: what it is ranked over; empty for free text.
      references: every accepted answer where there are several.
      group: a tag that some metrics read: the question a row belongs to, say.
      loss_spans: where in `targets` the loss is, as begin and end counted in characters: the responses of a conversation. Empty: on all.
    """

    inputs: str
    targets: str
    answer_choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    group: str = ""
    loss_spans: tuple[tuple[int, int], ...] = ()
