"""Adapters by their path: a folder of the PEFT library, or a file that a paper's code leaves, read as what PEFT would have written.

| path | from | read as |
|---|---|---|
| a folder with `adapter_config.json` | PEFT | itself |
| `.pt` with `<linear>.multi_lora_b` | T-Few (arXiv:2205.05638, github.com/r-three/t-few), its IA3 | IA3 |
| `.pt` with one array [P, D] | ATTEMPT (arXiv:2205.11961, github.com/AkariAsai/ATTEMPT), its prompts | PROMPT_TUNING |

T-Few scales what comes out of the feed-forward layer's linear branch (`wi_1`), which goes into `wo` in the same place: PEFT's scale is
there. Files are read without PyTorch, and nothing in them is run (`pytorch_files.py`).
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning.errors import UserError
from prompt_tuning.interop import pytorch_files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_OLD_WEIGHTS = "adapter_model.bin"
_TFEW = ".multi_lora_b"
_WANTED = "wanted a PEFT adapter's folder, or a .pt file of T-Few's IA3 or of one prompt"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """What an adapter folder holds.

    Attributes:
      settings: of `adapter_config.json`.
      entries: arrays by PEFT's names.
      where: the folder, for messages.
    """

    settings: Mapping[str, Any]
    entries: Mapping[str, np.ndarray]
    where: str = "the adapter"

    @property
    def kind(self) -> str:
        """PEFT's name of the method, as LORA."""
        return str(self.settings.get("peft_type"))


def read(path: str) -> Adapter:
    """The adapter at a path. Raises UserError where there is none of a known form."""
    found = pathlib.Path(path).expanduser()
    if not found.is_file():
        return _read_folder(path)
    held = pytorch_files.load(found)
    if isinstance(held, np.ndarray):
        return _prompt(held, path)
    if isinstance(held, dict) and held and all(isinstance(name, str) and name.endswith(_TFEW) for name in held):
        return Adapter({"peft_type": "IA3"}, _scales(held, path), path)
    got = f"entries such as {next(iter(held))!r}" if isinstance(held, dict) and held else f"a {type(held).__name__}"
    raise UserError(f"{path}: {_WANTED}, got {got}")


def write(folder: pathlib.Path, adapter: Adapter) -> None:
    """Writes an adapter's two files into a folder that exists."""
    (folder / CONFIG).write_text(json.dumps(dict(adapter.settings), indent=2) + "\n", encoding="utf-8")
    entries = {name: np.ascontiguousarray(value) for name, value in adapter.entries.items()}
    safetensors.numpy.save_file(entries, folder / WEIGHTS, metadata={"format": "pt"})


def _read_folder(folder: str) -> Adapter:
    path = pathlib.Path(folder).expanduser()
    # Before safetensors, PEFT wrote what torch.save writes.
    weights = next((name for name in (WEIGHTS, _OLD_WEIGHTS) if (path / name).is_file()), WEIGHTS)
    for name in (CONFIG, weights):
        if not (path / name).is_file():
            raise UserError(f"no PEFT adapter at {folder}: {name} is not there; wanted a folder that PEFT's save_pretrained wrote")
    try:
        settings = json.loads((path / CONFIG).read_text("utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"wanted an object, got {type(settings).__name__}")
    except ValueError as error:
        raise UserError(f"cannot read {path / CONFIG}: not the JSON of an adapter ({error}); copy it again") from error
    if weights == _OLD_WEIGHTS:
        entries = pytorch_files.load(path / weights)
        if not isinstance(entries, dict) or not all(isinstance(value, np.ndarray) for value in entries.values()):
            raise UserError(f"{path / weights}: wanted a PEFT adapter's arrays by name, got a {type(entries).__name__}")
        return Adapter(settings, entries, folder)
    try:
        with safetensors.safe_open(path / weights, framework="numpy") as file:
            entries = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"cannot read {path / weights}: truncated or not safetensors ({error}); copy it again") from error
    return Adapter(settings, entries, folder)


def _prompt(rows_PD: np.ndarray, path: str) -> Adapter:
    if rows_PD.ndim != 2 or rows_PD.dtype.kind in "iub":
        raise UserError(f"{path}: {_WANTED}, got an array {list(rows_PD.shape)} of {rows_PD.dtype}")
    settings = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": len(rows_PD)}
    return Adapter(settings, {"prompt_embeddings": rows_PD}, path)


def _scales(held: Mapping[str, Any], path: str) -> dict[str, np.ndarray]:
    entries = {}
    for name, value in held.items():
        module, _, linear = name.removesuffix(_TFEW).removeprefix("model.").rpartition(".")
        if linear not in ("k", "v", "wi", "wi_1") or np.ndim(value) == 0 or value.size != max(value.shape):
            raise UserError(f"{path}: {name} is no scale of keys, values or a feed-forward layer; {_WANTED}")
        if linear in ("k", "v"):
            entries[f"base_model.model.{module}.{linear}.ia3_l"] = value.reshape(-1, 1)
        else:
            entries[f"base_model.model.{module}.wo.ia3_l"] = value.reshape(1, -1)
    return entries
