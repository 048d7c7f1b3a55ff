"""What installs: every package that ours needs, directly or through others, is pinned, and the pins lie within setup.py's ranges."""

import importlib.metadata
import pathlib
import runpy

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]


def pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in found}


@pytest.fixture
def declared(monkeypatch):
    """The arguments of setup()."""
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
    runpy.run_path(str(ROOT / "setup.py"))
    return given


def test_pins_lie_within_the_ranges(declared):
    pinned = pins()
    for text in [*declared["install_requires"], *declared["extras_require"]["test"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


def test_every_package_reached_is_pinned(declared):
    pinned, seen = pins(), set()
    waiting = [Requirement(text) for text in [*declared["install_requires"], *declared["extras_require"]["test"]]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in ["", *requirement.extras]:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            assert name in pinned, f"{name} is not in constraints.txt"
            for text in importlib.metadata.requires(name) or []:
                needed = Requirement(text)
                # PyTorch's builds with CUDA ask for NVIDIA's libraries, which are theirs to pin.
                ours = not needed.name.startswith("nvidia") and needed.name not in ("triton", "cuda-bindings", "cuda-toolkit")
                if ours and (needed.marker is None or needed.marker.evaluate({"extra": extra})):
                    waiting.append(needed)


def test_what_the_package_reads_is_packaged(declared):
    patterns = declared["package_data"]["prompt_tuning"]
    packaged = {path for pattern in patterns for path in (ROOT / "prompt_tuning").glob(pattern)}
    data = [path for path in (ROOT / "prompt_tuning").rglob("*") if path.suffix in (".gin", ".model", ".safetensors", ".json", ".yaml")]
    assert data and packaged.issuperset(data)
    assert all(f"prompt_tuning.{name}" in declared["packages"] for name in ("data", "data.world.clusters", "interop", "methods", "models"))
