"""The kind of machine that a program is written for: "cpu", "gpu" or "tpu".

It is the one at hand, unless a program is only planned: then it is one that is not there (`prompt_tuning.planning`).
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_PLANNED: contextvars.ContextVar[str | None] = contextvars.ContextVar("planned", default=None)


def backend() -> str:
    """The kind of machine that what is traced now will run on."""
    return _PLANNED.get() or jax.default_backend()


@contextlib.contextmanager
def traced_for(kind: str) -> Iterator[None]:
    """What is traced in this block is written for a machine of this kind. Trace functions of its own there: JAX keeps what it traced."""
    token = _PLANNED.set(kind)
    try:
        yield
    finally:
        _PLANNED.reset(token)
