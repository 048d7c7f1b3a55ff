"""The methods that the README and the guide show are whole methods."""

import pathlib
import re
import sys
import types

import pytest

from prompt_tuning import train
from tests import tiny_run

ROOT = pathlib.Path(__file__).resolve().parents[1]


def trained_with(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> str:
    """The results of a run with the method whose Python and gin stand in a text."""
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    (gin,) = re.findall(r"```\n(from __gin__.*?)```", text, re.DOTALL)
    module = types.ModuleType(f"prompt_tuning.methods.{name}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(module.__name__, module, raising=False)
    exec(compile(code, f"{name}.py", "exec"), module.__dict__)
    (tmp_path / f"{name}.gin").write_text(gin)
    files = tiny_run.write_gin(tmp_path)
    names = (files["model"], str(tmp_path / f"{name}.gin"), files["data"])
    settings = [f"--gin.{setting}" for setting in tiny_run.SETTINGS if not setting.startswith("PROMPT_LENGTH")]
    train.main([*(f"--gin_file={name}" for name in names), *settings, f"--workdir={tmp_path / 'run'}"])
    return (tmp_path / "run" / "results.json").read_text()


def test_the_method_in_the_readme_trains_and_adds_what_it_says(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "README.md").read_text().split("## Add a method")[1].split("\n## ")[0]
    results = trained_with(tmp_path, monkeypatch, section, "mlp_scale")
    assert '"trained_parameters": 96' in results  # 24 units in each of 2 + 2 layers.


def test_the_method_in_the_guide_trains_and_adds_what_it_says(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (ROOT / "docs" / "adding_a_method.md").read_text()
    results = trained_with(tmp_path, monkeypatch, guide, "bias")
    assert '"trained_parameters": 640' in results  # (2 + 4) attentions of 3 x 16 + 16, 4 feed-forward layers of 2 x 24 + 16.
