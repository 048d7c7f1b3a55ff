"""The one exception for what the user gave wrong."""


class UserError(Exception):
    """A mistake in what the user gave: the command prints the message on one line and exits with status 2.

    The message says what is wrong, where, what was wanted, what came, and how to mend it.
    """
