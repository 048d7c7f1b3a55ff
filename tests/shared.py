"""Where the development data stands, for tests that try real files: they skip where it is absent."""

import os
import pathlib

import pytest

_ROOTS = [os.environ.get("PROMPT_TUNING_SHARED", ""), pathlib.Path(__file__).resolve().parents[2] / "shared"]


def shared_path(relative: str) -> pathlib.Path:
    """The path of a file of the development data; skips the calling test, with the reason, where it is absent."""
    for root in _ROOTS:
        if root and (path := pathlib.Path(root) / relative).exists():
            return path
    pytest.skip(f"the development data is not here: {relative} (set PROMPT_TUNING_SHARED to its folder)")
