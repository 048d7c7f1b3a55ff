"""The `convert` command: any known form becomes a base of our own with the same values, and a gin file that builds it."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
import safetensors

from prompt_tuning import assembly, cli, convert, interop
from prompt_tuning.data.decoder_vocabularies import SentencePiece, TokenizerJson
from prompt_tuning.errors import UserError
from prompt_tuning.interop import safetensors_file, t5x
from prompt_tuning.models.decoder_layers import DecoderConfig
from prompt_tuning.models.t5 import T5Config
from tests.data.test_decoder_vocabularies import LLAMA, sentencepiece_model, tokenizer_json
from tests.interop import test_llama2c, test_t5x, tiny, tiny_decoders
from tests.shared import shared_path
from tests.test_configs import METHOD, NO_DATA

OF_A_RUN = {"dropout_rate", "dtype", "param_dtype", "unroll_layers", "remat"}


def architecture(config):
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in OF_A_RUN}


def converted(source, target, **flags):
    """The configuration that the new gin file builds, and the weights that it finds."""
    convert.main([f"--source={source}", f"--target={target}", *(f"--{name}={value}" for name, value in flags.items())])
    built = cli.load_experiment([str(target / "model.gin"), METHOD], fallbacks=NO_DATA)
    config = built.model
    assert built.base_checkpoint == str(target) and type(config) in (T5Config, DecoderConfig)
    assert interop.stated_fields(str(target)) == dataclasses.asdict(interop.read_config(str(source)))
    abstract = (tiny if isinstance(config, T5Config) else tiny_decoders).abstract(config)
    values, sources = interop.load_base(built.base_checkpoint, config, abstract)
    assert all(entry.startswith("model.safetensors:") for entry in sources.values())
    return built, values


def same(found, wanted):
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize(("kind", "config"), [("t5", tiny.V1_0), ("t5", tiny.V1_1), ("umt5", tiny.UMT5)], ids=["v1.0", "v1.1", "umt5"])
def test_a_t5_of_hugging_face_becomes_ours(kind, config, tmp_path):
    tiny.save_huggingface(tiny.huggingface_model(kind, config), tmp_path / "base")
    built, values = converted(tmp_path / "base", tmp_path / "ours")
    assert architecture(built.model) == architecture(config)
    same(values, interop.load_base(str(tmp_path / "base"), config, tiny.abstract(config))[0])


def test_a_head_that_repeats_the_embedding_is_no_head_of_its_own(tmp_path):
    config = dataclasses.replace(tiny.V1_1, tied=True)
    values = tiny.random_values(config)
    from prompt_tuning.interop import config_json, huggingface

    entries = huggingface.to_huggingface(values)
    (tmp_path / "base").mkdir()
    safetensors.numpy.save_file(entries | {"lm_head.weight": entries["shared.weight"].copy()}, tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config_json.config_json(config)))
    built, found = converted(tmp_path / "base", tmp_path / "ours")
    assert built.model.tied
    same(found, values)


@pytest.mark.parametrize("several", [False, True])
def test_what_torch_saved_becomes_ours_and_nothing_in_it_is_run(several, tmp_path):
    """Older releases have no safetensors: `pytorch_model.bin`, or several such files with an index."""
    import torch

    base = tmp_path / "base"
    model = tiny.huggingface_model("t5", tiny.V1_0)
    tiny.save_huggingface(model, base)
    wanted, _ = interop.load_base(str(base), tiny.V1_0, tiny.abstract(tiny.V1_0))
    (base / "model.safetensors").unlink()
    state = model.state_dict()  # With the copies of the embedding, which share its storage.
    names = list(state)
    files = {"pytorch_model-1.bin": names[::2], "pytorch_model-2.bin": names[1::2]} if several else {"pytorch_model.bin": names}
    for file, held in files.items():
        torch.save({name: state[name] for name in held}, base / file)
    if several:
        index = {"weight_map": {name: file for file, held in files.items() for name in held}}
        (base / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    built, values = converted(base, tmp_path / "ours")
    assert built.model.tied
    same(values, wanted)
    last = base / list(files)[-1]
    torch.save({"shared.weight": print}, last)
    with pytest.raises(UserError, match=r"it names \S+\.print, which is no part of a tensor"):
        interop.read_config(str(base))
    if several:
        last.unlink()
        with pytest.raises(UserError, match="pytorch_model-2.bin, named in the index, is not in"):
            interop.read_config(str(base))


@pytest.mark.parametrize("family", ["gpt2", "llama3", "gemma3", "deepseek_v3"])
def test_a_decoder_in_several_files_becomes_ours(family, tmp_path):
    tiny_decoders.save(tiny_decoders.huggingface_model(family), tmp_path / "base", shard_bytes=8000)
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    (tmp_path / "base" / "tokenizer.model").write_bytes(sentencepiece_model(**LLAMA))
    built, values = converted(tmp_path / "base", tmp_path / "ours")
    wanted = tiny_decoders.stated_config(tmp_path / "base")
    assert architecture(built.model) == architecture(wanted)
    same(values, tiny_decoders.load(tmp_path / "base")[1])
    assert built.vocabulary == SentencePiece(str(tmp_path / "ours" / "tokenizer.model"))
    assert built.vocabulary.delimiters.bos == 1


LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|pad|>")


@pytest.mark.parametrize(
    ("stated", "ids", "special", "wanted"),
    [
        ({"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}, {}, ("<|endoftext|>",), {"eos": "<|endoftext|>"}),
        ({}, {"eos_token_id": 0, "bos_token_id": 0}, ("<|endoftext|>",), {"eos": "<|endoftext|>"}),
        (
            {"eos_token": {"content": "<|end_of_text|>"}, "bos_token": "<|begin_of_text|>", "pad_token": "<|pad|>"},
            {},
            LLAMA3,
            {"eos": "<|end_of_text|>", "bos": "<|begin_of_text|>", "pad": "<|pad|>"},
        ),
        ({}, {"eos_token_id": [1, 2], "bos_token_id": 0}, LLAMA3, {"eos": "<|end_of_text|>", "bos": "<|begin_of_text|>"}),
    ],
    ids=["gpt2", "gpt2 by ids", "llama3", "llama3 by ids"],
)
def test_a_tokenizer_json_goes_along_with_what_is_said_of_its_tokens(stated, ids, special, wanted, tmp_path):
    base = tmp_path / "base"
    tiny_decoders.save(tiny_decoders.huggingface_model("llama3"), base)
    tokenizer_json(base, special=special, begins=special[0] if len(special) > 1 else None)
    (base / "tokenizer_config.json").write_text(json.dumps(stated))
    (base / "tokenizer.model").write_text("Llama 3's file of this name is no SentencePiece model")
    tiny_decoders.rewrite_config(base, **{"eos_token_id": None, "bos_token_id": None} | ids)
    built, _ = converted(base, tmp_path / "ours")
    assert built.vocabulary == TokenizerJson(str(tmp_path / "ours" / "tokenizer.json"), **wanted)
    assert built.vocabulary.load().encode("The owl") == TokenizerJson(str(base / "tokenizer.json"), **wanted).load().encode("The owl")


def test_a_decoder_without_its_vocabulary_says_what_is_missing(tmp_path):
    tiny_decoders.save(tiny_decoders.huggingface_model("llama2"), tmp_path / "base")
    built, _ = converted(tmp_path / "base", tmp_path / "ours")
    with pytest.raises(UserError, match="no vocabulary file is given"):
        built.vocabulary.load()
    tokenizer_json(tmp_path / "base")
    tiny_decoders.rewrite_config(tmp_path / "base", eos_token_id=None)
    built, _ = converted(tmp_path / "base", tmp_path / "named")
    with pytest.raises(UserError, match=r"wanted eos to be one of its tokens, as of \['<\|endoftext\|>'\], got None"):
        built.vocabulary.load()


@pytest.mark.parametrize("config", test_t5x.CONFIGS.values(), ids=test_t5x.CONFIGS)
@pytest.mark.parametrize("scanned", [None, ("stack", 1), ("layers", 0)])
@pytest.mark.parametrize("split_heads", [False, True])
def test_a_checkpoint_of_t5x_becomes_ours(config, scanned, split_heads, tmp_path):
    values = tiny.random_values(config)
    path = test_t5x.write_t5x(tmp_path / "checkpoint_7", test_t5x.theirs(config, values, scanned=scanned, split_heads=split_heads))
    stated = T5Config(**t5x.config_fields(t5x.open_checkpoint(pathlib.Path(path))))
    # No shape tells how far relative positions are told apart.
    assert dataclasses.replace(stated, relative_max_distance=config.relative_max_distance) == config
    _, found = converted(path, tmp_path / "ours")
    same(found, values)


def test_the_real_checkpoint_of_t5x_states_its_sizes(tmp_path):
    folder = shared_path(test_t5x.REAL)
    built, _ = converted(folder, tmp_path / "ours")
    assert architecture(built.model) == architecture(test_t5x.REAL_CONFIG)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_llama2c_becomes_ours(tied, tmp_path):
    test_llama2c.write(tmp_path / "model.bin", tied=tied)
    built, values = converted(tmp_path / "model.bin", tmp_path / "ours")
    config = built.model
    assert (config.d_model, config.d_ff, config.num_layers, config.num_kv_heads, config.tied) == (8, 12, 2, 2, tied)
    same(values, interop.load_base(str(tmp_path / "model.bin"), config, tiny_decoders.abstract(config))[0])


def test_the_gin_file_builds_a_model_that_runs(tmp_path):
    config = dataclasses.replace(tiny.V1_1, vocab_size=384)  # ByT5's bytes need no vocabulary file.
    interop.save_base(tmp_path / "base", tiny.random_values(config), config, dtype="float32")
    built, values = converted(tmp_path / "base", tmp_path / "ours")
    small = dataclasses.replace(built, method=dataclasses.replace(built.method, length=3))
    held = assembly.trainable.named(assembly.assemble(small).frozen)
    same({name: np.asarray(value) for name, value in held.items()}, values)


def test_bfloat16_stays_and_a_dtype_can_be_chosen(tmp_path):
    values = tiny.random_values(tiny.V1_1)
    interop.save_base(tmp_path / "half", values, tiny.V1_1)
    for flags, wanted in (({}, ml_dtypes.bfloat16), ({"dtype": "float32"}, np.float32)):
        target = tmp_path / f"ours{len(flags)}"
        converted(tmp_path / "half", target, **flags)
        held = safetensors.numpy.load_file(target / "model.safetensors") if flags else read(target / "model.safetensors")
        for name, value in values.items():
            assert held[name].dtype == wanted
            np.testing.assert_array_equal(held[name].astype(np.float32), value.astype(ml_dtypes.bfloat16).astype(np.float32))


def read(file):
    with safetensors.safe_open(file, framework="numpy") as entries:
        return {name: entries.get_tensor(name) for name in entries.keys()}  # noqa: SIM118


def test_a_file_written_in_pieces_is_a_safetensors_file(tmp_path):
    rng = np.random.default_rng(0)
    held = {"a": rng.normal(size=(3, 2, 5)), "b": np.zeros((0, 4)), "c/d": np.float64(2.5)}
    shapes = {name: np.shape(value) for name, value in held.items()}
    safetensors_file.write(tmp_path / "x", shapes, lambda name: held[name] if name == "a" else [held[name]], dtype=np.dtype(np.float32))
    found = read(tmp_path / "x")
    assert set(found) == set(held)
    for name, value in held.items():
        np.testing.assert_array_equal(found[name], np.asarray(value, np.float32))
    with pytest.raises(AssertionError, match="the pieces are not those of the shapes"):
        safetensors_file.write(tmp_path / "y", shapes, lambda name: [held[name]][: name != "a"], dtype=np.dtype(np.float32))


def test_mistakes_are_one_line_and_nothing_is_written(tmp_path, capsys):
    def refused(source, target="new"):
        with pytest.raises(SystemExit) as stop:
            convert.main([f"--source={source}", f"--target={tmp_path / target}"])
        assert stop.value.code == 2 and not (tmp_path / "new").exists()
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line

    assert "no base checkpoint at" in refused(tmp_path / "nowhere")
    interop.save_base(tmp_path / "base", tiny.random_values(tiny.V1_1), tiny.V1_1)
    assert "is there already" in refused(tmp_path / "base", target="base")
    (tmp_path / "base" / "config.json").rename(tmp_path / "config.json")
    assert "wanted a config.json beside the weights" in refused(tmp_path / "base")
    (tmp_path / "config.json").rename(tmp_path / "base" / "config.json")
    os.truncate(tmp_path / "base" / "model.safetensors", 5000)
    assert "truncated or not safetensors" in refused(tmp_path / "base")


PEAK = """
import sys
from prompt_tuning import assembly, convert, interop, trainable
from prompt_tuning.models import t5

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

assembly.abstract_base(t5.T5Config())
before = peak()
convert.convert(sys.argv[1], sys.argv[2])
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").is_file(), reason="memory is read from Linux's /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_stays_near_the_size_of_the_checkpoint(dtype, tmp_path):
    """A made-up T5 of 300 MB: what converting takes beyond the imports is far less than the file: two of its largest entries at most."""
    from prompt_tuning.interop import config_json, huggingface

    layers = {"float32": 8, "bfloat16": 22}[dtype]
    config = T5Config(num_encoder_layers=layers, num_decoder_layers=layers)
    stored = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32)
    values = {name: np.broadcast_to(np.zeros((), stored), leaf.shape) for name, leaf in tiny.abstract(config).items()}
    values["head/kernel"] = np.ones_like(values["head/kernel"])  # Or it would be the embedding.
    (tmp_path / "base").mkdir()
    safetensors.numpy.save_file(huggingface.to_huggingface(values), tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "config.json").write_text(json.dumps(config_json.config_json(config)))
    size = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert 2.5e8 < size < 3.5e8
    command = [sys.executable, "-c", PEAK, str(tmp_path / "base"), str(tmp_path / "ours")]
    before, after = map(int, subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout.split())
    print(
        f"{dtype}: file {size / 1e6:.0f} MB, imports {before / 1e6:.0f} MB, peak {after / 1e6:.0f} MB, {(after - before) / size:.2f} files"
    )
    assert after - before <= 0.6 * size
    assert math.isclose((tmp_path / "ours" / "model.safetensors").stat().st_size, size, rel_tol=1e-3)
