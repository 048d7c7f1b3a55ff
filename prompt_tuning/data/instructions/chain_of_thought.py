"""FLAN's chain-of-thought files (Chung et al. 2022, arXiv:2210.11416): TSV of a question, an answer and the reasoning that leads to it.

Line breaks within a cell are written as a backslash and an n. There is no header.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from prompt_tuning.data import template_sets
from prompt_tuning.data.instructions.record import Reading, Record, content_identity
from prompt_tuning.data.row_files import lines, text
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError

_COLUMNS = ("question", "answer", "explanation")


@dataclasses.dataclass(frozen=True)
class ChainOfThought:
    """Rows told by templates.

    Attributes:
      templates: a set over `question`, `answer` (in the bundled set `reply`) and `explanation`.
      turned_around: whether training draws templates that are turned around too.
    """

    templates: str = "chain_of_thought"
    turned_around: bool = True

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The lines."""
        return lines(path)

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """One record; in evaluation by a template that is not turned around."""
        cells = text(where, item).split("\t")
        if len(cells) != len(_COLUMNS):
            raise UserError(f"{where}: {len(cells)} columns, wanted three, {', '.join(_COLUMNS)}, parted by tabs; mend the line")
        row = {name: cell.replace("\\n", "\n").strip() for name, cell in zip(_COLUMNS, cells, strict=True)}
        for name, cell in row.items():
            if not cell:
                raise UserError(f"{where}: column {name!r} is empty, wanted text; drop the line or fill it")
        chosen = template_sets.load(self.templates)
        identity = content_identity(reading, row["question"])
        found = [each for each in chosen.templates if not each.turned_around or (self.turned_around and reading.training)]
        rendered = template_sets.draw(found, identity, reading.seed).render(chosen.row(row, where), seed=reading.seed)
        yield Record(where, identity, TextRow(rendered.inputs, rendered.targets, rendered.answer_choices or ()))
