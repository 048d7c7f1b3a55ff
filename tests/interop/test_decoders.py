import dataclasses

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import interop
from prompt_tuning.errors import UserError
from prompt_tuning.interop import decoder_configs, decoders
from tests.interop import tiny_decoders as tiny


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def published(request, tmp_path_factory):
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("published") / request.param
    model = tiny.huggingface_model(request.param)
    tiny.save(model, folder)
    return folder, model


def test_every_entry_goes_out_as_it_came_in(published):
    folder, model = published
    _, values = tiny.load(folder)
    out = decoders.to_huggingface(values)
    theirs = safetensors.numpy.load_file(folder / "model.safetensors")
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    assert set(out) == set(theirs) - tied
    for name, value in out.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_a_model_in_several_files_loads_as_from_one(tmp_path):
    pytest.importorskip("transformers")
    model = tiny.huggingface_model("llama3")
    tiny.save(model, tmp_path / "one")
    tiny.save(model, tmp_path / "several", shard_bytes=8000)
    assert len(list((tmp_path / "several").glob("*.safetensors"))) > 1
    _, one = tiny.load(tmp_path / "one")
    _, several = tiny.load(tmp_path / "several")
    for name, value in one.items():
        np.testing.assert_array_equal(several[name], value)


def _rewritten(folder, edit):
    entries = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file(edit(entries) or entries, folder / "model.safetensors")


def test_names_of_other_releases_and_their_superfluous_entries_are_let_pass(tmp_path):
    pytest.importorskip("transformers")
    for name, edit in {
        # The first GPT-2: no root, and the masks as buffers.
        "gpt2": lambda e: {k.removeprefix("transformer."): v for k, v in e.items()} | {"h.0.attn.bias": np.ones((1, 1, 4, 4), "f4")},
        # Llama 2: angles as buffers.
        "llama2": lambda e: e | {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, "f4")},
        # Gemma 3 with its reader of images, and a head that repeats the embedding.
        "gemma3": lambda e: (
            {k.replace("model.", "language_model.model."): v for k, v in e.items()}
            | {"vision_tower.x.weight": np.ones(3, "f4"), "language_model.lm_head.weight": e["model.embed_tokens.weight"].copy()}
        ),
    }.items():
        tiny.save(tiny.huggingface_model(name), tmp_path / name)
        _, before = tiny.load(tmp_path / name)
        _rewritten(tmp_path / name, edit)
        _, after = tiny.load(tmp_path / name)
        for parameter, value in before.items():
            np.testing.assert_array_equal(after[parameter], value)


def test_what_does_not_fit_is_named(tmp_path):
    pytest.importorskip("transformers")
    tiny.save(tiny.huggingface_model("qwen2"), tmp_path)
    config = tiny.stated_config(tmp_path)
    for changes, said in (
        ({"num_layers": 2}, "states num_layers = 3, the model has 2: set DecoderConfig.num_layers = 3"),
        ({"vocab_size": 50}, r"vocabulary \(61\) is larger than the model's \(50\)"),
    ):
        other = dataclasses.replace(config, **changes)
        with pytest.raises(UserError, match=said):
            interop.load_base(str(tmp_path), other, tiny.abstract(other))
    (tmp_path / "config.json").unlink()
    for changes, said in (
        ({"qkv_bias": False}, r"unused checkpoint entry: model\.layers\.0\.self_attn\.k_proj\.bias"),
        ({"qk_norm": True}, r"missing parameter: .* comes from model\.layers\.0\.self_attn\.._norm\.weight"),
        ({"num_kv_heads": 4}, r"wrong shape: .*wanted \[24, 24\], got \[12, 24\]|wrong shape: .*wanted \[24\], got \[12\]"),
        ({"tied": True}, "contradicts itself: lm_head.weight"),
    ):
        other = dataclasses.replace(config, **changes)
        with pytest.raises(UserError, match=said):
            interop.load_base(str(tmp_path), other, tiny.abstract(other))


SMALL = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 20, "num_hidden_layers": 12, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        # Settings as the published files of each time have them.
        ({"model_type": "llama"}, {"num_kv_heads": 4, "head_width": 6, "rope_base": 10000.0, "norm_epsilon": 1e-6, "tied": False}),
        (
            {
                "model_type": "llama",
                "rope_theta": 500000.0,
                "rope_scaling": {
                    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
            },
            {"rope_base": 500000.0, "rope_scaling": "llama3", "rope_factor": 8.0, "rope_original_length": 8192},
        ),
        ({"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}, {"rope_scaling": "linear", "rope_factor": 2.0}),
        ({"model_type": "mistral", "sliding_window": 4096}, {"window": 4096, "layer_kinds": "L"}),
        ({"model_type": "qwen2", "sliding_window": 32768, "use_sliding_window": False}, {"qkv_bias": True}),
        ({"model_type": "gemma", "hidden_act": "gelu", "hidden_activation": None}, {"activation": "gelu", "head_width": 256, "tied": True}),
        (
            {"model_type": "gemma2", "query_pre_attn_scalar": 144, "attn_logit_softcapping": 50.0},
            {"layer_kinds": "LG", "attention_scale": 144**-0.5, "attention_cap": 50.0, "logit_cap": 30.0},
        ),
        (
            {
                "model_type": "gemma3",
                "text_config": SMALL | {"sliding_window": 1024, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "head_dim": 8},
            },
            {"layer_kinds": "LLLLLG", "rope_base": 1e6, "rope_factor": 8.0, "local_rope_base": 1e4, "window": 1024, "tied": True},
        ),
    ],
)  # fmt: skip
def test_published_configurations_are_read(config, wanted):
    fields = decoder_configs.config_fields(SMALL | config)
    assert {name: fields.get(name) for name in wanted} == wanted
    if "window" not in wanted and config["model_type"] != "gemma2":
        assert "layer_kinds" not in fields


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "mamba"}, "model_type 'mamba' is not known"),
        ({"model_type": "llama", "hidden_act": "relu"}, "activation 'relu' is not supported"),
        ({"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary scaling 'dynamic' is not supported"),
        ({"model_type": "gemma2", "layer_types": ["chunked_attention"]}, "layer type 'chunked_attention' is not supported"),
        ({"model_type": "gpt2", "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = true is not supported"),
    ],
)
def test_settings_that_the_model_does_not_have_are_refused(config, said):
    with pytest.raises(UserError, match=said):
        decoder_configs.config_fields(SMALL | config)
