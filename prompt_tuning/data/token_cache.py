"""Tokenized examples on disk, so that a run begins with what an earlier one has tokenized.

An entry stands under a hash of all that decides it: the task's settings, its vocabulary, the split, the content of every file that the
settings name, the code that makes texts of them, and the versions of the libraries that tokenize. Nothing is ever out of date, and what has
not been used for longest goes when the folder grows beyond LIMIT_BYTES. Several processes may use it at once: an entry is written whole.

The folder is `prompt_tuning/tokens` in the user's cache; PROMPT_TUNING_TOKEN_CACHE names another one, or none when empty.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from prompt_tuning import environment, files
from prompt_tuning.data import notes

Arrays = dict[str, np.ndarray]
VARIABLE = "PROMPT_TUNING_TOKEN_CACHE"
LIMIT_BYTES = 2 * 2**30
# What is made faster than this is not worth a file.
LEAST_SECS = 0.3
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
_LIBRARIES = ("jinja2", "numpy", "sentencepiece", "tokenizers")
_DAY_SECS = 86400.0
_NOTES = "notes"


def folder() -> pathlib.Path | None:
    """Where entries are kept; None where they are not."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return environment.user_cache() / "tokens"
    return pathlib.Path(named) if named else None


def kept(task: Any, what: str, make: Callable[[], Arrays]) -> Arrays:
    """The arrays that `make` gives, from the disk where they are there already; what was said while they were made is said again.

    Args:
      task: a `row_tasks.RowTask`; one that is not `on_disk` is made anew.
      what: which of its arrays.
      make: makes them.
    """
    there = folder()
    key = entry(task, what) if there is not None and getattr(task, "on_disk", False) else None
    if there is None or key is None:
        return make()
    path = there / f"{key}.npz"
    if (found := _read(path)) is not None:
        for line in found.pop(_NOTES).tolist():
            notes.say(line)
        return found
    started = time.monotonic()
    with notes.collected() as said:
        arrays = make()
    if time.monotonic() - started >= LEAST_SECS:
        with contextlib.suppress(OSError):  # A full disk, or a folder that may not be written.
            _write(path, arrays | {_NOTES: np.array(said, np.str_)})
    return arrays


def entry(task: Any, what: str) -> str | None:
    """The name of an entry: a hash of what decides it. None where the settings do not say it in full, or a file cannot be read."""
    if " at 0x" in repr(task.settings):  # An object that says no more than where it lies.
        return None
    try:
        contents = [file_digest(path) for path in sorted(set(named_files(task.settings)))]
        own = [file_digest(path) for path in sorted(set(_foreign_code(task.settings)) | set(_foreign_code(getattr(task, "read", None))))]
    except OSError:
        return None
    said = [task.name, what, contents, own, package_code(), versions()]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


def named_files(settings: Any) -> Iterator[str]:
    """The files that settings name: every text in them, however deep, that is the path of one."""
    if isinstance(settings, str | os.PathLike):
        path = os.path.expanduser(settings)
        if len(path) < 4096 and "\0" not in path and os.path.isfile(path):
            yield os.path.abspath(path)
    elif dataclasses.is_dataclass(settings) and not isinstance(settings, type):
        for field in dataclasses.fields(settings):
            yield from named_files(getattr(settings, field.name))
    elif isinstance(settings, Mapping):
        for each in settings.items():
            yield from named_files(each)
    elif isinstance(settings, tuple | list | set | frozenset):
        for each in settings:
            yield from named_files(each)


@functools.cache
def package_code() -> str:
    """A hash of the code and templates of this package that make texts and tokens."""
    digest = hashlib.sha256()
    for path in sorted([*(_PACKAGE / "data").rglob("*.py"), *(_PACKAGE / "assets" / "templates").glob("*.yaml")]):
        digest.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def versions() -> dict[str, str]:
    """The versions of the libraries that make texts and tokens."""
    return {name: importlib.metadata.version(name) for name in _LIBRARIES}


def _foreign_code(value: Any) -> Iterator[str]:
    """The files of the modules outside of this package that settings and functions are of."""
    if isinstance(value, functools.partial):
        for each in (value.func, *value.args, *value.keywords.values()):
            yield from _foreign_code(each)
        return
    if isinstance(value, tuple | list):
        for each in value:
            yield from _foreign_code(each)
        return
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _foreign_code(getattr(value, field.name))
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    path = getattr(module, "__file__", None)
    # The standard library and installed packages change with their versions only.
    if path and (callable(value) or dataclasses.is_dataclass(value)) and not pathlib.Path(path).is_relative_to(_PACKAGE):
        yield path


def file_digest(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: pathlib.Path) -> Arrays | None:
    """An entry; None where it is not there, or not whole. Using it makes it the latest used."""
    try:
        with open(path, "rb") as content, np.load(content, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        os.utime(path)
    except Exception:  # NumPy and zipfile raise whatever they stumble on in a file that is not whole.
        return None
    return arrays if _NOTES in arrays else None


def _write(path: pathlib.Path, arrays: Arrays) -> None:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # NumPy's own annotation takes `allow_pickle` for one of the arrays.
    if content.getbuffer().nbytes > LIMIT_BYTES // 2:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    files.atomic_write(path, content.getvalue())
    _trim(path.parent)


def _trim(there: pathlib.Path) -> None:
    """Deletes what was used longest ago until the rest is within the limit, and what an interrupted process left half written."""
    found = []
    for path in there.iterdir():
        with contextlib.suppress(FileNotFoundError):  # Another process is at it too.
            state = path.stat()
            if path.suffix == ".npz":
                found.append((state.st_mtime, state.st_size, path))
            elif path.suffix == ".tmp" and time.time() - state.st_mtime > _DAY_SECS:
                path.unlink()
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found)[:-1]:  # The latest stays.
        if total <= LIMIT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= size
