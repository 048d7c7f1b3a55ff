"""Templates: how the fields of a row become the text of an input, the text of a target and the answer choices.

A template string names fields in braces, as in `"Is it true? {hypothesis}"`. Two names are made by the template itself:
`{answer}`, the verbalised label of the row, and `{options}`, the block that lists the choices (FLAN, Wei et al. 2021, section 2.1).
"""

import dataclasses
import functools
import string
from collections.abc import Mapping
from typing import Any

from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rendered:
    """One example as text: what the model reads, what it should write, and the choices it is ranked over (None: free text)."""

    inputs: str
    targets: str
    answer_choices: tuple[str, ...] | None = None


@functools.lru_cache(maxsize=4096)
def field_names(text: str, where: str = "template") -> tuple[str, ...]:
    """The names in braces of a template string, in order.

    Raises UserError for a brace that is not closed or a field that is not a plain name.
    """
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise UserError(f"{where}: cannot read {text!r}: {error}; write a literal brace as {{{{ or }}}}") from error
    for name in names:
        if not name.isidentifier():
            raise UserError(f"{where}: field {{{name}}} in {text!r} is not a plain name; name a column in braces, as {{text}}")
    return tuple(names)


def options_block(choices: tuple[str, ...]) -> str:
    """The choices as FLAN lists them: a line `OPTIONS:` and a line `- choice` for each."""
    return "OPTIONS:\n" + "\n".join(f"- {choice}" for choice in choices)


@dataclasses.dataclass(frozen=True)
class Template:
    """One way of asking a task.

    Attributes:
      inputs: text with fields in braces.
      targets: text with fields in braces; `{answer}` is `answer_choices[row["label"]]` where there are answer choices.
      answer_choices: the label words in label order; None where the target is free text. Each may hold fields of the row
        (multiple choice: `("{choice0}", "{choice1}")`).
      turned_around: the template swaps input and output (FLAN section 2.1), as in "write a negative review".
      name: short, unique within its task.
    """

    inputs: str
    targets: str = "{answer}"
    answer_choices: tuple[str, ...] | None = None
    turned_around: bool = False
    name: str = ""

    def render(self, row: Mapping[str, Any]) -> Rendered:
        """The text of one row. Raises UserError for a missing field, or a label outside the choices."""
        values = {key: value for key, value in row.items() if isinstance(key, str)}
        choices = None
        if self.answer_choices is not None:
            choices = tuple(self._fill(choice, values) for choice in self.answer_choices)
            label = values.get("label")
            if not isinstance(label, int) or not 0 <= label < len(choices):
                raise UserError(f"template {self.name!r}: label is {label!r}, wanted 0..{len(choices) - 1} (choices {list(choices)})")
            values |= {"answer": choices[label], "options": options_block(choices)}
        targets = self._fill(self.targets, values)
        if choices is not None and targets not in choices:
            choices = None
        return Rendered(self._fill(self.inputs, values), targets, choices)

    def _fill(self, text: str, values: Mapping[str, Any]) -> str:
        missing = [name for name in field_names(text, f"template {self.name!r}") if name not in values]
        if missing:
            raise UserError(
                f"template {self.name!r}: no field {missing[0]!r} in the row; the row has {sorted(values)}; "
                "mend the template or the columns"
            )
        return text.format_map(values)
