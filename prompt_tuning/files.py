"""Writing files so that a reader never sees half of one."""

import os
import pathlib
import tempfile


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


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
