"""The method that the README shows is a whole method."""

import pathlib
import re
import sys
import types

import pytest

from prompt_tuning import train
from tests import tiny_run

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def test_the_method_in_the_readme_trains_and_adds_what_it_says(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text().split("## Add a method")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (gin,) = re.findall(r"```\n(from __gin__.*?)```", section, re.DOTALL)
    module = types.ModuleType("prompt_tuning.methods.mlp_scale")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("prompt_tuning.methods.mlp_scale", module, raising=False)
    exec(compile(code, "README.md", "exec"), module.__dict__)
    (tmp_path / "mlp_scale.gin").write_text(gin)
    files = tiny_run.write_gin(tmp_path)
    names = (files["model"], str(tmp_path / "mlp_scale.gin"), files["data"])
    settings = [f"--gin.{setting}" for setting in tiny_run.SETTINGS if not setting.startswith("PROMPT_LENGTH")]
    train.main([*(f"--gin_file={name}" for name in names), *settings, f"--workdir={tmp_path / 'run'}"])
    results = (tmp_path / "run" / "results.json").read_text()
    assert '"trained_parameters": 96' in results  # 24 units in each of 2 + 2 layers.
