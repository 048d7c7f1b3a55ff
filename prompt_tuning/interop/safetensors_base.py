"""The base model of a run: loaded from whatever the path holds, saved in this project's own format.

That format is a folder with `model.safetensors`, whose entries are our parameters under their own names with layers stacked, and
`config.json`, `{"model": <fields of T5Config>}`.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_tuning import assets
from prompt_tuning.errors import UserError
from prompt_tuning.files import atomic_write
from prompt_tuning.interop import decoder_configs, decoders, huggingface, llama2c, pytorch_files, safetensors_file, t5x, whisper
from prompt_tuning.interop.sources import Recipe, Source, check, check_copies, equal, fill, names_and_shapes, pieces
from prompt_tuning.models.decoder_layers import DecoderConfig
from prompt_tuning.models.t5 import T5Config
from prompt_tuning.models.whisper import WhisperConfig

_KINDS = (
    "a folder with model.safetensors (ours or Hugging Face's) or pytorch_model.bin, such a file, "
    "a T5X checkpoint folder, or a llama2.c .bin file"
)
# Fields whose wrong value changes the results without changing any shape, and those whose value shapes tell less clearly.
_NOT_COMPARED = ("dropout_rate", "dtype", "param_dtype", "unroll_layers", "remat", "tied")


def load_base(path: str, config: Any, abstract_params: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Every parameter of a base model from a checkpoint.

    Args:
      path: a folder or file of a kind that this module's error messages name, "~" allowed, or "bundled:NAME".
      config: the model's `T5Config`; what the checkpoint's config.json states must agree with it.
      abstract_params: tree (or flat dictionary by "/"-joined name) of leaves with shape and dtype: the base's parameters, without what a
        method adds. Values come in these dtypes.

    Returns:
      Values by "/"-joined name, and by the same name "file:entry" that they came from.

    Raises:
      UserError: not a checkpoint, truncated, a parameter without entry, an entry without parameter, a wrong shape, another architecture.
    """
    abstract = names_and_shapes(abstract_params)
    source, recipes, copies = _plan(path, config, abstract)
    return fill(source, recipes, abstract, copies=copies)


def base_sources(path: str, config: Any, abstract_params: Any) -> dict[str, str]:
    """Where `load_base` would take each parameter from, with its checks, without reading the values."""
    source, recipes, copies = _plan(path, config, names_and_shapes(abstract_params))
    return check(source, recipes, copies=copies)


def _plan(path: str, config: Any, abstract: Mapping[str, Any]) -> tuple[Source, dict[str, Recipe], dict[str, str]]:
    found = _find(path)
    if found.is_dir() and t5x.is_checkpoint(found):
        source = t5x.open_checkpoint(found)
        return source, t5x.recipes(source, abstract), {}
    if llama2c.is_llama2c(found):
        _compare(stated_fields(path), config, str(found))
        source = llama2c.open_model(found)
        return source, *llama2c.recipes(source, abstract)
    source = _open_files(found)
    _compare(stated_fields(path), config, source.where)
    if whisper.is_huggingface(source.shapes):
        return source, *whisper.recipes(source, abstract)
    if decoders.is_huggingface(source.shapes):
        return source, *decoders.recipes(source, abstract)
    if huggingface.is_huggingface(source.shapes):
        return source, *huggingface.recipes(source, abstract)
    return source, {name: Recipe((name,), {tuple(leaf.shape): np.asarray}) for name, leaf in abstract.items()}, {}


def _find(path: str) -> pathlib.Path:
    found = pathlib.Path(assets.resolve(path)).expanduser()
    if not found.exists():
        raise UserError(f"no base checkpoint at {path}: wanted {_KINDS}: set BASE_CHECKPOINT")
    return found


def stated_fields(path: str) -> dict[str, Any]:
    """The fields of the model's configuration that the config.json beside a checkpoint states; empty where there is none."""
    found = _find(path)
    if llama2c.is_llama2c(found):
        return llama2c.config_fields(found)
    file = (found if found.is_dir() else found.parent) / "config.json"
    if not file.is_file():
        return {}
    try:
        stated = json.loads(file.read_text("utf-8"))
        if not isinstance(stated, dict):
            raise ValueError(f"wanted an object, got {type(stated).__name__}")
    except ValueError as error:
        raise UserError(f"cannot read {file}: not JSON of a model's configuration ({error})") from error
    if isinstance(stated.get("model"), dict):
        return stated["model"]
    if stated.get("model_type") == "whisper":
        return whisper.config_fields(stated)
    family = decoder_configs if decoder_configs.is_known(stated) else huggingface
    return family.config_fields(stated)


def read_config(path: str) -> T5Config | DecoderConfig | WhisperConfig:
    """The architecture of a base in any form, from its config.json, its header or the shapes of its entries.

    Raises UserError where it is no checkpoint, or nothing states the architecture.
    """
    found = _find(path)
    if found.is_dir() and t5x.is_checkpoint(found):
        return T5Config(**t5x.config_fields(t5x.open_checkpoint(found)))
    fields = stated_fields(path)
    if not fields:
        raise UserError(f"the architecture of {path} is not known: wanted a config.json beside the weights; copy the whole folder")
    known: tuple[type[T5Config] | type[DecoderConfig] | type[WhisperConfig], ...] = (T5Config, DecoderConfig, WhisperConfig)
    kinds = [kind for kind in known if set(fields) <= {field.name for field in dataclasses.fields(kind)}]
    if not kinds:
        raise UserError(f"the architecture of {path} is not known: wanted config.json of a T5, a decoder-only model or a Whisper")
    if kinds[0] is T5Config and "tied" not in fields:
        fields["tied"] = _tied(_open_files(found))
    return kinds[0](**fields)


def _tied(source: Source) -> bool:
    """Whether a T5's head is its embedding, which transformers says of every T5 in config.json: it is absent, or a copy."""
    head, embedding = "lm_head.weight", "shared.weight"
    if head not in source.shapes:
        return True
    return embedding in source.shapes and equal(source, head, embedding)


def copy_base(path: str, folder: pathlib.Path, config: Any, abstract_params: Any, *, dtype: str | None = None) -> str:
    """Writes a base of any form in this project's own, with one entry of the checkpoint in memory at a time.

    Args:
      path, config, abstract_params: as of `load_base`.
      folder: exists, and gets the files of `save_base`.
      dtype: "bfloat16", "float32", or None for that of the checkpoint's largest entry, where float16 becomes float32.

    Returns:
      The dtype. Raises UserError as `load_base` does.
    """
    abstract = names_and_shapes(abstract_params)
    source, recipes, copies = _plan(path, config, abstract)
    check(source, recipes, copies=copies)
    check_copies(source, copies)
    if dtype is None:
        largest = max((recipe.entries[0] for recipe in recipes.values()), key=lambda entry: math.prod(source.shapes[entry]))
        dtype = "bfloat16" if source.read(largest).dtype.name == "bfloat16" else "float32"
    shapes = {name: tuple(leaf.shape) for name, leaf in abstract.items()}
    target = folder / "model.safetensors"
    safetensors_file.write(target, shapes, lambda name: pieces(source, name, recipes[name]), dtype=_stored(dtype))
    _write_config(folder, config)
    return dtype


def save_base(path: str | os.PathLike[str], params: Any, config: Any, *, dtype: str = "bfloat16") -> None:
    """Writes a base in this project's own format.

    Args:
      path: the folder; made if it is not there.
      params: tree (or flat dictionary by "/"-joined name) of the base's parameters.
      config: the model's `T5Config`.
      dtype: of the stored values: "bfloat16" or "float32".
    """
    folder = pathlib.Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: np.ascontiguousarray(np.asarray(value), dtype=_stored(dtype)) for name, value in names_and_shapes(params).items()}
    atomic_write(folder / "model.safetensors", safetensors.numpy.save(named))
    _write_config(folder, config)


def _write_config(folder: pathlib.Path, config: Any) -> None:
    atomic_write(folder / "config.json", json.dumps({"model": dataclasses.asdict(config)}, indent=2) + "\n")


def _stored(dtype: str) -> np.dtype:
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)


def _compare(stated: Mapping[str, Any], config: Any, where: str) -> None:
    for field, value in stated.items():
        if field in _NOT_COMPARED:
            continue
        mine = getattr(config, field, value)
        # mT5 and UMT5 configs state the tokenizer's size, or the embedding's; the embedding's shape is checked itself.
        if field != "vocab_size" and mine != value:
            raise UserError(
                f"the base is another architecture: config.json in {where} states {field} = {value}, the model has {mine}: "
                f"set {type(config).__name__}.{field} = {value}, or give another BASE_CHECKPOINT"
            )


def _open_files(found: pathlib.Path) -> Source:
    """The entries of safetensors files, or of what torch.save wrote."""
    folder = found if found.is_dir() else found.parent
    shapes: dict[str, tuple[int, ...]] = {}
    file_of: dict[str, str] = {}
    pickled: dict[str, pytorch_files.Tensor] = {}
    for file in _files(found):
        if not file.is_file():
            raise UserError(f"truncated checkpoint: {file.name}, named in the index, is not in {folder}: copy it again")
        if file.suffix == ".bin":
            pickled |= (held := pytorch_files.tensors(file))
            shapes |= {entry: tensor.shape for entry, tensor in held.items()}
            file_of |= dict.fromkeys(held, file.name)
            continue
        try:
            with safetensors.safe_open(file, framework="numpy") as opened:
                for entry in opened.keys():  # noqa: SIM118
                    shapes[entry] = tuple(opened.get_slice(entry).get_shape())
                    file_of[entry] = file.name
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"cannot read {file}: truncated or not safetensors ({error}): copy it again") from error

    def read(entry: str) -> np.ndarray:
        file = folder / file_of[entry]
        if entry in pickled:
            return pytorch_files.read(pickled[entry], file)
        # The pages that were read count as memory for as long as the file is open.
        with safetensors.safe_open(file, framework="numpy") as opened:
            return opened.get_tensor(entry)

    return Source(where=str(found), shapes=shapes, read=read, file_of=lambda entry: file_of[entry])


def _files(found: pathlib.Path) -> list[pathlib.Path]:
    """The files of a checkpoint: one, or those an index names."""
    if found.is_file():
        if found.suffix != ".safetensors" and not (found.suffix == ".bin" and found.name.startswith("pytorch_model")):
            raise UserError(f"not a base checkpoint: wanted {_KINDS}, got the file {found}")
        return [found]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (found / name).is_file():
            return [found / name]
        index = found / f"{name}.index.json"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError) as error:
                raise UserError(f"cannot read {index}: not an index of a model's files ({error}): copy it again") from error
            return [found / name for name in names]
    there = sorted(file.name for file in found.iterdir())
    if steps := [name for name in there if t5x.is_checkpoint(found / name)]:
        raise UserError(f"not a base checkpoint: {found} holds T5X checkpoints; give one of them, as {found / steps[-1]}")
    got = ", ".join(there[:5]) if there else "an empty folder"
    raise UserError(f"not a base checkpoint: {found}: wanted {_KINDS}, got {got}")
