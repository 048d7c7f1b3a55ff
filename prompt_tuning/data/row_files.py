"""Rows as files hold them, one at a time: lines, JSON objects and their fields, what is wrong named with file, line and field."""

import gzip
import json
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_tuning.errors import UserError


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
    if not path.removesuffix(".gz").lower().endswith(".json"):
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
