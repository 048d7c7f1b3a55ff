"""Data that is text already: JSON rows of an input and a target, as T0's training data (P3, Sanh et al. 2022) are passed on rendered."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from prompt_tuning.data.instructions.record import Reading, Record, content_identity
from prompt_tuning.data.row_files import field, given_id, json_object, json_rows, texts
from prompt_tuning.data.rows import TextRow


@dataclasses.dataclass(frozen=True)
class Rendered:
    """Rows of a JSONL file, or of a JSON file that holds an array.

    Attributes:
      input_field: the field that holds the input.
      target_field: the field that holds the target, or a list of accepted ones.
      choices_field: the field that lists the answer choices, where rows have one; None for free text.
      end: a mark that ends targets in the file and is no part of them.
    """

    input_field: str = "prompt"
    target_field: str = "completion"
    choices_field: str | None = None
    end: str = "<|endoftext|>"

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The rows."""
        return json_rows(path)

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """One record, without white space around its texts."""
        row = json_object(where, item)
        inputs = field(row, self.input_field, where).strip()
        accepted = tuple(text.removesuffix(self.end).strip() for text in texts(row, self.target_field, where))
        choices: tuple[str, ...] = ()
        if self.choices_field is not None and row.get(self.choices_field) is not None:
            choices = tuple(text.strip() for text in texts(row, self.choices_field, where))
        written = TextRow(inputs, accepted[0], choices, accepted if len(accepted) > 1 else ())
        yield Record(where, content_identity(reading, inputs), written, given_id(row))
