"""What a process settles before JAX and TensorFlow are imported: quiet logs, a compilation cache, and memory that is kept."""

import contextlib
import ctypes
import os
import pathlib
import sys

# glibc's numbers for mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD (bytes), M_MMAP_MAX, M_ARENA_MAX.
_MALLOPT = ((-1, -1), (-2, 256 * 2**20), (-4, 0), (-8, 1))


def settle() -> None:
    """Settles the process; variables that are set already stay as they are. Must come before the first import of JAX or TensorFlow."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "prompt_tuning" / "xla"
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    keep_memory()


def keep_memory() -> None:
    """Lets glibc keep freed memory.

    XLA on a CPU takes its temporaries afresh each step; giving them back cost a tenth to a quarter of a pretraining step of `t5_mini`.
    """
    if not sys.platform.startswith("linux") or os.environ.get("JAX_PLATFORMS", "cpu") != "cpu":
        return
    with contextlib.suppress(OSError, AttributeError):  # Another C library: nothing to settle.
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOPT:
            mallopt(option, value)
