"""What every test runs under: quiet third parties, one shared compilation cache, and no silent rank promotion."""

import os
import pathlib
import socket
import sys

import pytest

# Before anything imports TensorFlow or JAX.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # No test may reach for a download.
os.environ.setdefault("MPLBACKEND", "Agg")
# Compiled programs are kept between runs: a second run of the suite spends its time on testing.
_CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "prompt_tuning" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("PROMPT_TUNING_TOKEN_CACHE", "")  # Tests read what they write.
# [B, 1, D] + [S, D] is a mistake more often than a wish.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_dropped():
    """Drops a file's compiled programs after it: each takes a few of the 65,530 memory maps that Linux gives a process, and a suite that
    keeps them all ends in a segmentation fault."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture
def no_network(monkeypatch):
    """Fails a test that opens a connection."""

    def refuse(*args, **settings):
        raise AssertionError(f"a connection was opened: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
