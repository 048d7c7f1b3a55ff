"""Arrays from files of `torch.save`, without PyTorch and without running anything that a file says.

Such a file is a zip archive: `data.pkl` is a pickle of dicts, lists and tensors, and `data/<key>` holds the bytes of a storage that tensors
are views of. A pickle may name any function to be called. This reader knows five names, those of tensors' rebuilding, and stands in for
them itself; at any other name it stops. So do files of PyTorch before 1.6, which are no archives.
"""

import collections
import dataclasses
import io
import math
import pathlib
import pickle
import zipfile
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
    try:
        with zipfile.ZipFile(path) as archive:
            # The folder in the archive is named after the file that was first written.
            [pickled] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            root = pickled.removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise UserError(f"cannot read {path}: its numbers are big-endian; save it again on another machine")
            return _plain(_Reader(io.BytesIO(archive.read(pickled)), archive, root).load(), {})
    except UserError:
        raise
    except Exception as error:  # A damaged pickle raises whatever its bytes happen to ask for.
        raise UserError(
            f"cannot read {path}: not a file of tensors that torch.save wrote in PyTorch 1.6 or later "
            f"({type(error).__name__}: {error}); copy it again"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Kind:
    """Stands for a class of storages."""

    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are views of."""

    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """Stands for a tensor while the pickle is read. Whatever the pickle makes of it is checked when its values are asked for."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """Its values. Raises ValueError for a view that reaches beyond its storage."""
        values, numbers = self.storage.values, (self.offset, *self.shape, *self.strides)
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


def _rebuild_tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("collections", "OrderedDict"): collections.OrderedDict,
} | {("torch", name): _Kind(dtype) for name, dtype in _DTYPES.items()}


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, root: str):
        super().__init__(file)
        self._archive, self._root = archive, root
        self._storages: dict[str, _Storage] = {}

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
        if key not in self._storages:
            self._storages[key] = _Storage(np.frombuffer(self._archive.read(f"{self._root}data/{key}"), kind.dtype))
        if (size := self._storages[key].values.size) != length:
            raise pickle.UnpicklingError(f"storage {key} has {size} numbers of {length}")
        return self._storages[key]


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """The same with arrays for tensors. A container that holds itself is refused."""
    if isinstance(value, _Tensor):
        return value.array()
    if isinstance(value, dict | list | tuple):
        if id(value) in seen:
            raise ValueError("a container that holds itself")
        inside = seen | {id(value): value}
        if isinstance(value, dict):
            return {key: _plain(each, inside) for key, each in value.items()}
        return [_plain(each, inside) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise ValueError(f"a {type(value).__name__}, which is no part of a file of tensors")
