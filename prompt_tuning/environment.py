"""What a process settles before JAX and TensorFlow are imported: quiet logs, a compilation cache, and how large blocks of memory come.

XLA on a CPU takes the temporaries of a step afresh each time, in one block of up to gigabytes. Given back and taken anew in pages of 4 kB
it costs a tenth to a third of a step; kept by glibc it is soon cut up by small blocks, and then there are two or three of it. In huge
pages, of 2 MB, it can be given back: tuning a prompt on T5 v1.1 small, 16 x 512/32, takes 7 GB and not 19, at the same speed.
"""

import contextlib
import ctypes
import os
import pathlib
import sys

_TUNABLE = "glibc.malloc.hugetlb=1"
_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
# glibc's numbers for mallopt(3): M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD (bytes), M_MMAP_MAX, M_ARENA_MAX.
_KEPT = ((-1, -1), (-2, 256 * 2**20), (-4, 0), (-8, 1))
_LARGE_APART = ((-1, -1), (-2, 256 * 2**20), (-3, 32 * 2**20), (-8, 1))


def settle(*, may_restart: bool = False) -> None:
    """Settles the process; variables that are set already stay as they are. Must come before the first import of JAX or TensorFlow.

    With `may_restart` the process may begin again, once, with the same arguments: glibc asks for huge pages only where it was told to
    before the process began. Only for what has done nothing yet.
    """
    if may_restart and _gains_by_restart():
        os.environ["GLIBC_TUNABLES"] = _TUNABLE
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    cache = user_cache() / "xla"
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    settle_memory()


def user_cache() -> pathlib.Path:
    """The folder that keeps what can be made again, between runs."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "prompt_tuning"


def settle_memory() -> None:
    """Lets glibc take large blocks by themselves, in huge pages, where it does; else lets it keep all it has taken."""
    if not _on_linux_cpu():
        return
    with contextlib.suppress(OSError, AttributeError):  # Another C library: nothing to settle.
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _LARGE_APART if _in_huge_pages() else _KEPT:
            mallopt(option, value)


def _on_linux_cpu() -> bool:
    return sys.platform.startswith("linux") and os.environ.get("JAX_PLATFORMS", "cpu") == "cpu"


def _in_huge_pages() -> bool:
    return "[always]" in _mode() or ("[madvise]" in _mode() and _TUNABLE in os.environ.get("GLIBC_TUNABLES", ""))


def _gains_by_restart() -> bool:
    return (
        _on_linux_cpu() and "GLIBC_TUNABLES" not in os.environ and "[madvise]" in _mode() and _glibc() >= (2, 35) and bool(sys.executable)
    )


def _mode() -> str:
    with contextlib.suppress(OSError):
        return _HUGE_PAGES.read_text()
    return ""


def _glibc() -> tuple[int, ...]:
    """The version of glibc; () where it is another C library."""
    with contextlib.suppress(OSError, ValueError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return tuple(map(int, version.split("."))) if name == "glibc" else ()
    return ()
