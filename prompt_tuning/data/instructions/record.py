"""The one record that every format gives, and how a file is read: one row at a time, what is wrong named with file, line and field."""

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
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
    """

    where: str
    identity: str
    row: TextRow
    id: str = ""


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


def lines(path: str) -> Iterator[tuple[str, bytes]]:
    """The lines of a file that are not blank, without their ends, one at a time; `.gz` is unpacked.

    Raises UserError for a file that cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield f"{path}:{number}", line.rstrip(b"\r\n")
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read: {error}; check the file") from error


def text(where: str, line: bytes) -> str:
    """A line as text. Raises UserError where it is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not UTF-8: byte 0x{line[error.start]:02x}; convert the file, as with iconv -f latin1 -t utf-8"
        ) from error


def json_object(where: str, item: Any) -> dict[str, Any]:
    """A line, or a value read already, as a JSON object. Raises UserError for anything else."""
    if isinstance(item, bytes):
        try:
            item = json.loads(text(where, item))
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not JSON: {error.msg} at column {error.colno}; wanted one object a line; mend the line") from error
    if not isinstance(item, dict):
        raise UserError(f"{where}: wanted a JSON object, got {type(item).__name__}; mend the row")
    return item


def json_rows(path: str) -> Iterator[tuple[str, Any]]:
    """The rows of a `.jsonl` file, one a line and not yet parsed, or of a `.json` file that holds an array."""
    if not path.removesuffix(".gz").endswith(".json"):
        yield from lines(path)
        return
    rows = json_file(path)
    if not isinstance(rows, list):
        raise UserError(f"{path}: wanted an array of objects, got {type(rows).__name__}; mend the file")
    for number, row in enumerate(rows, start=1):
        yield f"{path}: element {number}", row


def json_file(path: str) -> Any:
    """The content of a JSON file. Raises UserError, naming file and line, where it is none."""
    whole = b"\n".join(_all_lines(path))
    try:
        return json.loads(text(path, whole))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg} at column {error.colno}; mend the file") from error


def _all_lines(path: str) -> Iterator[bytes]:
    """Every line of a file, blank ones as such, so that line numbers stay."""
    last = 0
    for where, line in lines(path):
        number = int(where.rpartition(":")[2])
        yield from [b""] * (number - last - 1)
        yield line
        last = number


def given_id(row: Mapping[str, Any]) -> str:
    """What a row calls itself; empty where it has no name."""
    return "" if row.get("id") is None else str(row["id"])


def field(row: Mapping[str, Any], name: str, where: str, *, empty: bool = False) -> str:
    """The text of a field; numbers are written out. Raises UserError where it is missing, no text, or empty though it may not be."""
    if name not in row:
        raise UserError(f"{where}: no field {name!r}; it has {', '.join(map(repr, row)) or 'none'}; mend the row")
    value = row[name]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: field {name!r} is {_short(value)}, wanted text; mend the row")
    if not value.strip() and not empty:
        raise UserError(f"{where}: field {name!r} is empty, wanted text; drop the row or fill it")
    return value


def texts(row: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    """A field that is a text or a list of texts. Raises UserError as `field`, and for an empty list."""
    value = row.get(name)
    if not isinstance(value, list):
        return (field(row, name, where),)
    if not value:
        raise UserError(f"{where}: field {name!r} is an empty list, wanted a text at least; drop the row or fill it")
    return tuple(field({name: entry}, name, where) for entry in value)


def _short(value: Any) -> str:
    shown = json.dumps(value, default=str)
    return shown if len(shown) <= 40 else f"{shown[:40]}..."
