"""What ends a command early: what the user gave wrong, and a signal to stop."""

import contextlib
import re
import sys
from collections.abc import Iterator


class UserError(Exception):
    """A mistake in what the user gave: the command prints the message on one line and exits with status 2.

    The message says what is wrong, where, what was wanted, what came, and how to mend it.
    """


class Interrupted(Exception):
    """A run was asked to stop (SIGTERM), and has saved itself: the command says so and exits with status 143."""


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Ends the process with status 2 where a UserError comes out of the block, once its message stands on stderr as one line."""
    try:
        yield
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


def one_line(error: BaseException) -> str:
    """The message of an error without its line breaks."""
    return re.sub(r"\s*\n\s*", " ", str(error).strip())
