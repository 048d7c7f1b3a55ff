"""Arrays from files of `torch.save`, without PyTorch and without running anything that a file says.

Such a file is a zip archive: `data.pkl` is a pickle of dicts, lists and tensors, and `data/<key>` holds the bytes of a storage that tensors
are views of. A pickle may name any function to be called. This reader knows five names, those of tensors' rebuilding, and stands in for
them itself; at any other name it stops. So do files of PyTorch before 1.6, which are no archives.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np

from prompt_tuning.errors import UserError

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


def load(path: pathlib.Path) -> Any:
    """What a file holds, with NumPy arrays for tensors: an array, or dicts and lists of arrays and plain values.

    Raises UserError where the file is none of `torch.save`, is truncated, or names anything but tensors.
    """
    with _readable(path):
        return _plain(_unpickled(path), {}, lambda tensor: tensor.array())


def tensors(path: pathlib.Path) -> dict[str, "Tensor"]:
    """The tensors of a file that holds them by name, as a model's weights, each of which is read when its `array` is asked for.

    Raises UserError as `load`, and for a file that holds anything else.
    """
    with _readable(path):
        held = _plain(_unpickled(path), {}, lambda tensor: tensor)
        if not isinstance(held, dict) or not all(isinstance(name, str) and isinstance(each, Tensor) for name, each in held.items()):
            raise ValueError("wanted tensors by name")
        return held


def read(tensor: "Tensor", path: pathlib.Path) -> np.ndarray:
    """The values of one of the file's `tensors`; errors as of `load`."""
    with _readable(path):
        return tensor.array()


@contextlib.contextmanager
def _readable(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # A damaged pickle raises whatever its bytes happen to ask for.
        raise UserError(
            f"cannot read {path}: not a file of tensors that torch.save wrote in PyTorch 1.6 or later "
            f"({type(error).__name__}: {error}); copy it again"
        ) from error


def _unpickled(path: pathlib.Path) -> Any:
    """What the pickle makes, with `Tensor` for tensors."""
    with zipfile.ZipFile(path) as archive:
        # The folder in the archive is named after the file that was first written.
        [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"cannot read {path}: its numbers are big-endian; save it again on another machine")
        return _Reader(io.BytesIO(archive.read(pickled)), path, root).load()


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Stands for a class of storages."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are views of, read when asked for."""

    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Stands for a tensor. Whatever the pickle made of it is checked when its values are asked for."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Its values. Raises ValueError for a view that reaches beyond its storage."""
        values, numbers = self.storage.read(), (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise ValueError("a tensor of impossible shape")
        if math.prod(self.shape) == 0:
            return np.zeros(self.shape, values.dtype)
        last = self.offset + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if last >= values.size or math.prod(self.shape) > values.size:
            raise ValueError("a tensor that reaches beyond its storage")
        step = values.itemsize
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, [stride * step for stride in self.strides])
        return np.ascontiguousarray(view).reshape(self.shape)


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): collections.OrderedDict,
} | {("torch", name): _Kind(dtype) for name, dtype in _DTYPES.items()}


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: pathlib.Path, root: str):
        super().__init__(file)
        self._path, self._root = path, root

    def find_class(self, module_name: str, global_name: str) -> Any:
        """What a name stands for; nothing is imported."""
        if (module_name, global_name) not in _KNOWN:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is no part of a tensor")
        return _KNOWN[module_name, global_name]

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that ("storage", its class, key, device, length) names."""
        word, kind, key, _, length = pid
        if word != "storage" or not isinstance(kind, _Kind):
            raise pickle.UnpicklingError("it names something stored that is no tensor")
        return _Storage(functools.partial(_numbers, self._path, f"{self._root}data/{key}", kind.dtype, length))


def _numbers(path: pathlib.Path, name: str, dtype: np.dtype, length: int) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        numbers = np.frombuffer(archive.read(name), dtype)
    if numbers.size != length:
        raise ValueError(f"{name} has {numbers.size} numbers of {length}")
    return numbers


def _plain(value: Any, seen: dict[int, Any], made: Callable[[Tensor], Any]) -> Any:
    """The same with what `made` gives for tensors. A container that holds itself is refused."""
    if isinstance(value, Tensor):
        return made(value)
    if isinstance(value, dict | list | tuple):
        if id(value) in seen:
            raise ValueError("a container that holds itself")
        inside = seen | {id(value): value}
        if isinstance(value, dict):
            return {key: _plain(each, inside, made) for key, each in value.items()}
        return [_plain(each, inside, made) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"a {type(value).__name__}, which is no part of a file of tensors")
