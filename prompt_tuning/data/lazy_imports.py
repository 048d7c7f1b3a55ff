"""Lazy imports that stay in their thread.

TensorFlow Datasets imports much of itself in blocks `with epy.lazy_imports()`, for whose time etils replaces `builtins.__import__` in the
whole process. While batches are made in the background, an import statement that another thread reaches in such a moment gets a lazy
module, even where it asked for a function: `TypeError: 'LazyModule' object is not callable`, once in many runs.
"""

import builtins
import contextlib
import threading
from collections.abc import Iterator
from typing import Any


def keep_apart() -> None:
    """Makes the blocks of etils' `lazy_imports` lazy for the thread that is in one alone. Must come before TFDS is first imported."""
    from etils import epy
    from etils.epy import lazy_imports_utils as etils

    if getattr(etils.lazy_imports, "of_one_thread", False):
        return
    blocks, lazily, really = etils.lazy_imports, etils._lazy_import, builtins.__import__
    inside = threading.local()

    @contextlib.contextmanager
    def of_one_thread(**settings: Any) -> Iterator[None]:
        with blocks(**settings):
            inside.block = True
            try:
                yield
            finally:
                inside.block = False

    def imported(name: str, *place: Any, error_callback: Any = None, success_callback: Any = None, **places: Any) -> Any:
        if getattr(inside, "block", False):
            return lazily(name, *place, error_callback=error_callback, success_callback=success_callback, **places)
        return really(name, *place, **places)

    of_one_thread.of_one_thread = True  # type: ignore[attr-defined]
    etils._lazy_import = imported
    etils.lazy_imports = epy.lazy_imports = of_one_thread
