"""Writing files so that a reader never sees half of one."""

import contextlib
import csv
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_tuning.errors import UserError


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a file whole or not at all: a temporary file in the same folder, flushed to the disk, takes the name.

    Text is written as UTF-8. An interrupted write leaves the earlier file as it was. The folder must exist.
    """
    path = pathlib.Path(path)
    payload = data.encode("utf-8") if isinstance(data, str) else data
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes rows as CSV, whole; a row without a column leaves it empty. `columns`: None takes all, in the order they come up."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic_write(path, text.getvalue())


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], *, flag: str) -> Iterator[pathlib.Path]:
    """A folder to fill, which takes its name when the block ends well and is gone when it does not.

    Raises UserError, naming the flag, where something is at the path that is not an empty folder, or nothing can be written there.
    """
    path = pathlib.Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{flag} {path}: is there already; wanted a new or empty folder, for nothing is overwritten; choose another")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    except OSError as error:
        raise UserError(f"{flag} {path}: cannot write there ({error.strerror}); choose another") from error
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
