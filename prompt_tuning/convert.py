"""Reads a base model in any known form and writes it in this project's own, with a gin file that names its sizes.

  python -m prompt_tuning.convert --source=t5-v1_1-small --target=bases/t5_1_1_small
  python -m prompt_tuning.train --gin_file=bases/t5_1_1_small/model.gin --gin_file=configs/methods/prompt.gin ...

Known forms: a Hugging Face folder of T5, mT5, UMT5, ByT5, Whisper or a decoder-only family (safetensors or pytorch_model.bin, one file or
several with an index), a T5X checkpoint folder, a llama2.c .bin file, a base of our own. The weights pass through memory an entry at a time
and keep their dtype, bfloat16 as bfloat16, unless --dtype says otherwise. The vocabulary beside them goes along: a SentencePiece model, or
the tokenizer.json of a decoder-only model or a Whisper with what the folder says of its special tokens. The target must be new or empty.
"""

import argparse
import dataclasses
import math
import pathlib
import shutil
import sys
from typing import TYPE_CHECKING

from prompt_tuning import environment, files
from prompt_tuning.errors import reported

if TYPE_CHECKING:
    from prompt_tuning.assembly import ModelConfig
    from prompt_tuning.interop.vocabulary_files import Found

GIN_FILE = "model.gin"
# Fields that a run sets.
_OF_A_RUN = ("dropout_rate", "dtype", "param_dtype", "unroll_layers", "remat")
_BYTES = 384  # The rows of ByT5's embedding.


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--source", metavar="PATH", required=True, help="the base: a folder or a file")
    parser.add_argument("--target", metavar="DIR", required=True, help="a new or empty folder")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), help="of the stored weights (default: the checkpoint's own)")
    flags = parser.parse_args(argv)
    environment.settle(may_restart=argv is None)
    with reported():
        print(convert(flags.source, flags.target, dtype=flags.dtype), file=sys.stderr)


def convert(source: str, target: str, *, dtype: str | None = None) -> str:
    """Writes the base at `source` into the folder `target`, with its gin file, and says what was written.

    Raises UserError where the source is no base of a known form, is truncated or states no architecture, or the target is not empty.
    """
    from prompt_tuning import assembly, interop, trainable
    from prompt_tuning.interop import vocabulary_files

    with files.new_folder(target, flag="--target") as folder:
        config = interop.read_config(source)
        abstract = {name: variable.get_value() for name, variable in trainable.named_variables(assembly.abstract_base(config))}
        stored = interop.copy_base(source, folder, config, abstract, dtype=dtype)
        size = sum(math.prod(leaf.shape) for leaf in abstract.values())
        place = pathlib.Path(source).expanduser()
        beside = place if place.is_dir() else place.parent
        vocabulary = (vocabulary_files.of_encoder_decoder if _module(config) == "t5" else vocabulary_files.of_decoder)(beside)
        if vocabulary.file is not None:
            shutil.copyfile(vocabulary.file, folder / vocabulary.file.name)
        (folder / GIN_FILE).write_text(_gin(config, size, source, pathlib.Path(target).absolute(), vocabulary), encoding="utf-8")
    return f"wrote {size:,} parameters in {stored} into {target}; run it with --gin_file={target}/{GIN_FILE}"


def _module(config: "ModelConfig") -> str:
    """The module of `models` that a configuration's class is gin's by."""
    return {"T5Config": "t5", "DecoderConfig": "decoder", "WhisperConfig": "whisper"}[type(config).__name__]


def _gin(config: "ModelConfig", size: int, source: str, target: pathlib.Path, vocabulary: "Found") -> str:
    """The text of the gin file."""
    module, name = _module(config), type(config).__name__
    lines = [
        f"# The base converted from {source}: {size:,} parameters.",
        "from __gin__ import dynamic_registration",
        "from prompt_tuning import experiment",
        f"from prompt_tuning.data import {vocabulary.module}",
        f"from prompt_tuning.models import {module}",
        "",
        f"BASE_CHECKPOINT = {str(target)!r}",
    ]
    as_bytes = module == "t5" and config.vocab_size == _BYTES
    if not as_bytes:
        path = None if vocabulary.file is None else str(target / vocabulary.file.name)
        lines += [f"VOCABULARY = {path!r}  # The path of the checkpoint's vocabulary."]
    lines += ["", f"experiment.Experiment.model = @{module}.{name}()"]
    fields = [field.name for field in dataclasses.fields(config) if field.name not in _OF_A_RUN]
    lines += [f"{module}.{name}.{field} = {getattr(config, field)!r}" for field in fields]
    if as_bytes:
        lines += ["experiment.Experiment.vocabulary = @vocabularies.Bytes()"]
    else:
        settings = f"{vocabulary.module}.{vocabulary.name}"
        lines += [f"experiment.Experiment.vocabulary = @{settings}()", f"{settings}.path = %VOCABULARY"]
        lines += [f"{settings}.{field} = {value!r}" for field, value in vocabulary.fields.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
