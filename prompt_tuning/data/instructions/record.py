"""The one record that every format gives, and how a file becomes records: row by row, what is wrong named with file, line and field."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, Protocol

from prompt_tuning.data.instructions.chat_templates import ChatTemplate
from prompt_tuning.data.rows import TextRow
from prompt_tuning.errors import UserError


@dataclasses.dataclass(frozen=True)
class Record:
    """One example of an instruction data set.

    Attributes:
      where: `file:line`, or what names it within its file.
      identity: its task and what the file says, its name apart. Whatever is drawn for it (template, reference, exemplars, split) is drawn
        by a hash of this, so that the same question is the same example wherever it stands.
      row: its text.
      id: what the file calls it, which no other row of the file may be called; empty where it has no name.
      template: the name of the template that told it; empty where none did.
    """

    where: str
    identity: str
    row: TextRow
    id: str = ""
    template: str = ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What a format needs to know besides its own settings.

    Attributes:
      task: the name of the task that the file belongs to.
      training: whether the rows are for training; else for evaluation.
      seed: of everything drawn.
      chat: how conversations are written; None: as plain text.
      count_tokens: the length of a text in tokens, EOS included.
    """

    task: str = ""
    training: bool = True
    seed: int = 0
    chat: ChatTemplate | None = None
    count_tokens: Callable[[str], int] = len


class Format(Protocol):
    """A format: a frozen dataclass with its settings."""

    def items(self, path: str) -> Iterator[tuple[str, Any]]:
        """The raw rows of a file with where each stands. Raises UserError for a file that cannot be read at all."""
        ...

    def records(self, where: str, item: Any, reading: Reading) -> Iterator[Record]:
        """The examples of a raw row: none where a template drops it. Raises UserError for a row that is wrong."""
        ...


@dataclasses.dataclass
class Counts:
    """What became of the raw rows of files: `read`, of which `skipped` were wrong and `dropped` gave no example; and the first mistake."""

    read: int = 0
    skipped: int = 0
    dropped: int = 0
    first: str = ""

    def __str__(self) -> str:
        wrong = f"{self.skipped} skipped (the first: {self.first})" if self.skipped else ""
        dropped = f"{self.dropped} dropped by their template" if self.dropped else ""
        return f"{self.read} rows, {', '.join(filter(None, (wrong, dropped))) or 'all of them good'}"


def records(
    path: str, format: Format, reading: Reading, *, counts: Counts | None = None, on_error: Literal["raise", "skip"] = "raise"
) -> Iterator[Record]:
    """The examples of a file, in its order.

    Args:
      path: the file.
      format: what it is written in.
      reading: see `Reading`.
      counts: is added to.
      on_error: whether a row that is wrong ends the reading with its error or is counted and skipped.

    Raises UserError, naming file, line and field, for whatever is wrong; a file that cannot be read at all is an error in any case.
    """
    counts = Counts() if counts is None else counts
    seen: dict[str, str] = {}
    for where, item in format.items(path):
        counts.read += 1
        try:
            found = [_checked(record) for record in format.records(where, item, reading)]
            for record in found:
                if record.id and seen.setdefault(record.id, where) != where:
                    raise UserError(f"{where}: id {record.id!r} stands at {seen[record.id]} too; wanted different ids; mend the row")
        except UserError as error:
            if on_error == "raise":
                raise
            counts.skipped += 1
            counts.first = counts.first or str(error)
            continue
        counts.dropped += not found
        yield from found


def _checked(record: Record) -> Record:
    row = record.row
    for name in ("inputs", "targets"):
        if not getattr(row, name).strip():
            raise UserError(f"{record.where}: the {name} are empty; wanted text; drop the row or fill it")
    if row.answer_choices and row.targets not in row.answer_choices:
        raise UserError(f"{record.where}: the answer {row.targets!r} is none of the choices {list(row.answer_choices)}; mend the row")
    return record


def draw(identity: str, what: str, seed: int, count: int) -> int:
    """A number from 0 to count - 1 for an example: a hash of its identity, of what is drawn and of the seed."""
    digest = hashlib.sha256(f"{what}\x1f{seed}\x1f{identity}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % count


def content_identity(reading: Reading, *texts: str) -> str:
    """The identity of a row: the name of its task and what it says."""
    return "\x1f".join([reading.task, *texts])
