"""What the package ships: the vocabulary of the task world and the small pretrained models."""

import importlib.resources

from prompt_tuning.errors import UserError

BUNDLED = "bundled:"


def resolve(path: str) -> str:
    """The path of a file or folder: `bundled:NAME` is NAME among the package's assets, anything else stands for itself.

    Raises UserError when a bundled name is not there.
    """
    if not path.startswith(BUNDLED):
        return path
    name = path.removeprefix(BUNDLED)
    root = importlib.resources.files(__name__)
    found = root.joinpath(name)
    if not name or not (found.is_file() or found.is_dir()):
        there = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith(("_", ".")))
        raise UserError(f"{path}: the package ships no asset {name!r}; it ships {there}; name one of these or give a path")
    return str(found)
