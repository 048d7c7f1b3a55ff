"""An iterator made ahead by a background thread."""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from prompt_tuning.data import features

_END = object()


class Prefetched:
    """An iterator whose elements a background thread makes ahead; what goes wrong there is raised here.

    The thread ends with `close`, at the end of a `with` block, when the iterator is collected, or at exit.
    """

    _JOIN_SECS: ClassVar[float] = 10.0

    def __init__(self, make: Callable[[], Iterator[features.Batch]], size: int = 4) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=size)
        stop = threading.Event()
        thread = threading.Thread(target=_produce, args=(make, self._queue, stop), name="training-batches", daemon=True)
        self._finish = weakref.finalize(self, _finish, stop, thread, self._JOIN_SECS)
        self._ended = False
        thread.start()

    def __iter__(self) -> "Prefetched":
        return self

    def __next__(self) -> features.Batch:
        if self._ended or not self._finish.alive:
            raise StopIteration
        item = self._queue.get()
        if item is _END or isinstance(item, BaseException):
            self._ended = True
            raise item if isinstance(item, BaseException) else StopIteration()
        return item

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread and waits for it."""
        self._finish()


def _produce(make: Callable[[], Iterator[features.Batch]], items: "queue.Queue[Any]", stop: threading.Event) -> None:
    last: Any = _END
    try:
        for item in make():
            if not _put(items, item, stop):
                return
    except BaseException as error:  # It belongs to the thread that reads the batches.
        last = error
    _put(items, last, stop)


def _put(items: "queue.Queue[Any]", item: Any, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            items.put(item, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def _finish(stop: threading.Event, thread: threading.Thread, join_secs: float) -> None:
    stop.set()
    if thread is not threading.current_thread():
        thread.join(join_secs)
