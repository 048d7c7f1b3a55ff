"""The notebooks: whole, without outputs in git, and executed at a tiny size in kernels of their own."""

import json
import pathlib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What takes the place of each notebook's parameters.
TINY = {
    "tour": {"MODEL": "t5_nano", "STEPS": 2},
    "lester2021_tpu": {
        "MODEL": "t5_nano",
        "DATA": "configs/data/world.gin",
        "SETTINGS": [
            "TRAIN_STEPS = 2", "BATCH_SIZE = 4", "PROMPT_LENGTH = 3", "INPUT_LENGTH = 32", "TARGET_LENGTH = 8", "EVAL_STEPS = 1",
            "CHECKPOINT_STEPS = 1", "LOG_STEPS = 1", "NUM_TRAIN = 16", "NUM_VALIDATION = 4",
        ],
    },
    "own_data": {"MODEL": "t5_nano", "STEPS": 2},
}  # fmt: skip
LEFT = {
    "tour": ("prompt/prompt.npy", "prompt.png", "instructed/results.json", "instructed/test-test.json", "base_asked/test-test.json"),
    "lester2021_tpu": ("prompt.npy", "loss.png", "results.json", "peft/adapter_config.json"),
    "own_data": ("run/prompt.npy", "run/results.json", "prompt/prompt.npy", "train.tsv"),
}


def read(path: pathlib.Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_every_notebook_is_executed_here() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(TINY) == set(LEFT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_kept_without_outputs(path: pathlib.Path) -> None:
    import nbformat

    notebook = read(path)
    nbformat.validate(nbformat.from_dict(notebook))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in code:
        compile("".join(cell["source"]), path.name, "exec")
    assert [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())] == [code[0]]
    assert path.read_text(encoding="utf-8") == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_that_the_test_sets_are_there(path: pathlib.Path) -> None:
    told: dict[str, Any] = {}
    (parameters,) = [cell for cell in read(path)["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    exec("".join(parameters["source"]), told)
    assert {*TINY[path.stem], "WORKDIR", "REPOSITORY"} <= set(told) and told["REPOSITORY"] == ""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    workdir = tmp_path / "work"
    told = {**TINY[path.stem], "WORKDIR": str(workdir)}
    (place,) = [number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in told.items())))
    client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    said = "".join(output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)
    assert "Traceback" not in said
    for name in LEFT[path.stem]:
        assert (workdir / name).exists(), f"{name}: {said[-2000:]}"
