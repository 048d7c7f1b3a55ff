"""Trees of arrays as Orbax saves them: an index in JSON, `_METADATA`, and zarr arrays, in folders of their own or in one OCDBT store."""

import json
import pathlib
from typing import Any

import numpy as np

from prompt_tuning.errors import UserError
from prompt_tuning.interop.sources import Source

_INDEX = "_METADATA"


def is_tree(folder: pathlib.Path) -> bool:
    """Whether a folder holds a tree's index."""
    return (folder / _INDEX).is_file()


def open_tree(folder: pathlib.Path, *, below: str) -> Source:
    """The arrays below a key of the tree, by the rest of their names ("/"-joined).

    Raises UserError where the index is damaged, there is no such key, or an array is not there.
    """
    try:
        about = json.loads((folder / _INDEX).read_text("utf-8"))
        paths = [tuple(str(key["key"]) for key in entry["key_metadata"]) for entry in about["tree_metadata"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"cannot read {folder / _INDEX}: not an index of Orbax's ({error}): copy the checkpoint again") from error
    names = {"/".join(path[1:]): ".".join(path) for path in paths if path[:1] == (below,)}
    if not names:
        raise UserError(
            f"{folder} has nothing called {below!r}: wanted a checkpoint of T5X, got keys {sorted({path[0] for path in paths})}"
        )
    driver = "zarr3" if about.get("use_zarr3") else "zarr"
    opened = {name: _open(folder, driver, stored) for name, stored in names.items()}
    return Source(
        where=str(folder),
        shapes={name: tuple(array.shape) for name, array in opened.items()},
        read=lambda name: _read(opened[name], folder, name),
        file_of=lambda name: names[name],
    )


def _open(folder: pathlib.Path, driver: str, stored: str) -> Any:
    import tensorstore

    place = str(folder.absolute())
    one_store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{place}/"}, "path": f"{stored}/"}
    alone = {"driver": "file", "path": f"{place}/{stored}"}
    kvstore = one_store if (folder / "manifest.ocdbt").is_file() else alone
    try:
        # Chunks that are not there would read as zeros.
        return tensorstore.open({"driver": driver, "kvstore": kvstore, "fill_missing_data_reads": False}, open=True).result()
    except ValueError as error:
        raise _damaged(folder, stored, error) from error


def _read(array: Any, folder: pathlib.Path, name: str) -> np.ndarray:
    try:
        return np.asarray(array.read().result())
    except ValueError as error:
        raise _damaged(folder, name, error) from error


def _damaged(folder: pathlib.Path, name: str, error: Exception) -> UserError:
    return UserError(
        f"cannot read {name} in {folder}: truncated or corrupt ({str(error).splitlines()[0][:160]}): copy the checkpoint again"
    )
