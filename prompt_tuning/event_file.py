"""Scalars for TensorBoard, written with TensorBoard's own records and without TensorFlow, whose import takes seconds and much memory."""

import os
import pathlib
import socket
import time
from collections.abc import Mapping
from typing import Any


class EventFile:
    """A file of events in a folder, made with the first scalars. Each call's scalars are on the disk when it returns."""

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = pathlib.Path(folder)
        self._records: Any = None

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Adds the scalars of a step, by tag."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._records is None:
            self._records = self._opened()
            self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._records.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._records is not None:
            self._records.close()

    def _opened(self) -> Any:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names: the time comes first.
        name = f"events.out.tfevents.{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{time.time_ns() % 10**9:09d}"
        return RecordWriter(open(self._folder / name, "xb"))

    def _add(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
