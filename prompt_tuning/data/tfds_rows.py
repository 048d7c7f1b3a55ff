"""Rows of TensorFlow Datasets as plain Python values, for formats that otherwise read files.

A split of a data set is named where a path would stand: `tfds:NAME#SPLIT`, as `tfds:glue/rte:2.0.0#train[:-200]`, in TFDS's own notations.
Texts are decoded, labels are their numbers, a sequence of mappings is a mapping of lists, as its builder's features say.
"""

from collections.abc import Iterator
from typing import Any

from prompt_tuning.errors import UserError

_PREFIX = "tfds:"


def named(path: str) -> bool:
    """Whether a path names a split of TFDS."""
    return path.startswith(_PREFIX)


def split_path(name: str, split: str) -> str:
    """The path of a split, such as `glue/rte:2.0.0` and `train[:-200]`."""
    return f"{_PREFIX}{name}#{split}"


def rows(path: str, data_dir: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a split with where each stands, in the order in which they are stored, which TFDS draws when it prepares a data set.

    Args:
      path: see `split_path`.
      data_dir: the TFDS folder; None is TFDS's own, where data that is missing is downloaded.

    Raises UserError for a path that names no split, and for data that can be neither read nor fetched.
    """
    name, _, split = path.removeprefix(_PREFIX).partition("#")
    if not name or not split:
        raise UserError(f"{path}: wanted tfds:NAME#SPLIT, as tfds:glue/rte:2.0.0#train; mend the path")
    import tensorflow_datasets as tfds

    try:
        dataset = tfds.as_numpy(tfds.load(name, split=split, data_dir=data_dir))
    except Exception as error:  # TFDS raises whatever its downloader, its file system or its checksums raise.
        short = (str(error).splitlines() or [type(error).__name__])[0][:200]
        where = data_dir or "the default data folder"
        raise UserError(f"{path}: cannot be read from {where} or fetched: {short}; prepare it with `tfds build`") from error
    for number, row in enumerate(dataset):
        yield f"{path} row {number}", _plain(row)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if hasattr(value, "tolist"):  # An array, or a number of NumPy's.
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return value
