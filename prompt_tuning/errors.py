"""What ends a command early: what the user gave wrong, and a signal to stop."""


class UserError(Exception):
    """A mistake in what the user gave: the command prints the message on one line and exits with status 2.

    The message says what is wrong, where, what was wanted, what came, and how to mend it.
    """


class Interrupted(Exception):
    """A run was asked to stop (SIGTERM), and has saved itself: the command says so and exits with status 143."""
