"""What reading has to say besides its rows: one line each on stderr, kept by who wants to say it again."""

import contextlib
import contextvars
import sys
from collections.abc import Iterator

_COLLECTED: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("notes", default=None)


def say(line: str) -> None:
    """Prints a line on stderr."""
    said = _COLLECTED.get()
    if said is not None:
        said.append(line)
    print(line, file=sys.stderr)


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """A list that gets what this thread says in the block."""
    said: list[str] = []
    token = _COLLECTED.set(said)
    try:
        yield said
    finally:
        _COLLECTED.reset(token)
