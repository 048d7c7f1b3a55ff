"""Whisper's weights from and to Hugging Face's folders."""

import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import interop
from prompt_tuning.errors import UserError
from prompt_tuning.interop import whisper
from tests.interop import tiny_whisper
from tests.interop.tiny_whisper import CONFIG


@pytest.fixture
def folder(tmp_path):
    model = tiny_whisper.huggingface_model()
    model.save_pretrained(tmp_path)
    return tmp_path


def entries(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def rewrite(folder, held):
    safetensors.numpy.save_file(held, folder / "model.safetensors")


def load(folder):
    return interop.load_base(str(folder), CONFIG, tiny_whisper.abstract(CONFIG))


def test_the_configuration_is_read_from_config_json(folder):
    assert tiny_whisper.stated_config(folder, unroll_layers=False) == CONFIG


def test_every_entry_comes_in_and_goes_out_as_it_was(folder):
    _, values = tiny_whisper.load(folder)
    out = whisper.to_huggingface(values, source_positions=CONFIG.source_positions)
    held = entries(folder)
    assert set(out) == set(held)
    for name, value in held.items():
        if "encoder.embed_positions" in name:
            np.testing.assert_allclose(out[name], value, atol=1e-6)  # Sines are taken anew.
        else:
            np.testing.assert_array_equal(out[name], value)


def test_sources_name_the_entries_without_reading_them(folder):
    assert interop.base_sources(str(folder), CONFIG, tiny_whisper.abstract(CONFIG)) == load(folder)[1]
    sources = load(folder)[1]
    assert sources["stem/conv2/kernel"] == "model.safetensors:model.encoder.conv2.weight"
    where = "decoder/layers/cross_attention/attention/key/kernel"
    assert sources[where] == "model.safetensors:model.decoder.layers.*.encoder_attn.k_proj.weight"


def test_files_without_the_heads_root_and_with_the_head_are_read_too(folder):
    held = entries(folder)
    wanted, _ = load(folder)
    for changed in (
        {name.removeprefix("model."): value for name, value in held.items()},
        held | {"proj_out.weight": held["model.decoder.embed_tokens.weight"]},
    ):
        rewrite(folder, changed)
        found, _ = load(folder)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.encoder.embed_positions.weight": np.zeros((12, 24), np.float32)}, "embed_positions.*wanted the sinusoids"),
        ({"proj_out.weight": np.zeros((61, 24), np.float32)}, "proj_out.weight .*should repeat"),
        ({"model.encoder.layers.0.self_attn.k_proj.bias": np.zeros(24, np.float32)}, "unused checkpoint entry.*k_proj.bias"),
        ({"model.encoder.conv1.weight": np.zeros((24, 10, 5), np.float32)}, r"stem/conv1/kernel .*wanted \[24, 10, 3\], got \[24, 10, 5\]"),
        ({"model.decoder.layer_norm.bias": None}, "missing parameter: decoder/norm/bias"),
    ],
)
def test_what_does_not_fit_is_named(folder, change, message):
    rewrite(folder, {name: value for name, value in (entries(folder) | change).items() if value is not None})
    with pytest.raises(UserError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "relu"}, "activation_function = 'gelu'.*got 'relu'"),
        ({"scale_embedding": True}, "scale_embedding"),
        ({"decoder_ffn_dim": 8}, "decoder_ffn_dim"),
        ({"num_mel_bins": 80}, "config.json .*mels = 80, the model has 10"),
    ],
)
def test_other_architectures_are_named(folder, change, message):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        load(folder)


def test_a_tuned_parameter_has_no_place_there():
    with pytest.raises(UserError, match="has no place in Hugging Face's Whisper"):
        whisper.to_huggingface({"embed/embedding": np.zeros((2, 4)), "embed/prompt/rows": np.zeros((1, 4))}, source_positions=2)
