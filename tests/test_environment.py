"""What a process settles: it may begin again once, and large blocks of memory come in huge pages where the machine has them."""

import os
import pathlib
import subprocess
import sys

import pytest

from prompt_tuning import environment

PROGRAM = """
import os, sys
from prompt_tuning import environment
environment.settle(may_restart=True)
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""


def started(**variables: str) -> tuple[int, list[str]]:
    """The process's number and what it says."""
    cleared = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, "-c", PROGRAM, "one argument", "--two=2"]
    process = subprocess.Popen(command, env=cleared | variables, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return process.pid, said.splitlines()


@pytest.mark.skipif(not environment._glibc() >= (2, 35) or "[madvise]" not in environment._mode(), reason="no huge pages to ask glibc for")
def test_a_command_begins_again_once_with_its_arguments_and_number() -> None:
    pid, said = started(JAX_PLATFORMS="cpu")
    assert said == [f"{pid} glibc.malloc.hugetlb=1 ['one argument', '--two=2']"]


def test_what_the_user_set_stays() -> None:
    pid, said = started(GLIBC_TUNABLES="glibc.malloc.check=0")
    assert said == [f"{pid} glibc.malloc.check=0 ['one argument', '--two=2']"]


def test_other_devices_are_left_alone() -> None:
    pid, said = started(JAX_PLATFORMS="tpu")
    assert said == [f"{pid} None ['one argument', '--two=2']"]


@pytest.mark.parametrize(
    ("mode", "tunables", "huge"),
    [
        ("always [madvise] never", environment._TUNABLE, True),
        ("always [madvise] never", None, False),
        ("[always] madvise never", None, True),
        ("always madvise [never]", environment._TUNABLE, False),
        (None, environment._TUNABLE, False),
    ],
)
def test_huge_pages_are_used_where_the_machine_gives_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path, mode: str | None, tunables: str | None, huge: bool
) -> None:
    monkeypatch.setattr(environment, "_HUGE_PAGES", tmp_path / "enabled")
    if mode is not None:
        (tmp_path / "enabled").write_text(mode)
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if tunables:
        monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    assert environment._in_huge_pages() == huge
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert environment._gains_by_restart() == (mode == "always [madvise] never" and tunables is None and environment._glibc() >= (2, 35))
