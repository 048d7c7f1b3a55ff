import dataclasses

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import interop
from prompt_tuning.errors import UserError
from prompt_tuning.interop import huggingface
from tests.interop import tiny

KINDS = {"t5-v1.0": ("t5", tiny.V1_0), "t5-v1.1": ("t5", tiny.V1_1), "mt5": ("mt5", tiny.V1_1), "umt5": ("umt5", tiny.UMT5)}


@pytest.fixture(params=KINDS)
def published(request, tmp_path):
    pytest.importorskip("transformers")
    kind, config = KINDS[request.param]
    model = tiny.huggingface_model(kind, config)
    tiny.save_huggingface(model, tmp_path / "hf")
    return str(tmp_path / "hf"), config, model


def test_every_entry_goes_out_as_it_came_in(published):
    path, config, model = published
    values, sources = interop.load_base(path, config, tiny.abstract(config))
    assert set(values) == set(sources) == set(tiny.abstract(config))
    out = huggingface.to_huggingface(values)
    theirs = {name: value.numpy() for name, value in model.state_dict().items()}
    tied = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"} | ({"lm_head.weight"} if config.tied else set())
    assert set(out) == set(theirs) - tied
    for name, value in out.items():
        np.testing.assert_array_equal(value, theirs[name])


def test_the_configuration_is_read(published):
    path, config, _ = published
    stated = interop.stated_fields(path)
    assert stated["per_layer_bias"] == config.per_layer_bias
    assert {field: getattr(config, field) for field in stated} == stated


def _rewritten(path, edit):
    file = f"{path}/model.safetensors"
    entries = safetensors.numpy.load_file(file)
    edit(entries)
    safetensors.numpy.save_file(entries, file)


def test_copies_of_the_embedding_and_the_old_unused_bias_are_let_pass(published):
    path, config, _ = published

    def edit(entries):
        entries["decoder.embed_tokens.weight"] = entries["shared.weight"].copy()
        entries["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = np.ones((8, 3))
        if config.tied:
            entries["lm_head.weight"] = entries["shared.weight"].copy()

    before, _ = interop.load_base(path, config, tiny.abstract(config))
    _rewritten(path, edit)
    after, _ = interop.load_base(path, config, tiny.abstract(config))
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_copy_that_differs_is_refused(published):
    path, config, _ = published
    _rewritten(path, lambda entries: entries.update({"encoder.embed_tokens.weight": entries["shared.weight"] + 1}))
    with pytest.raises(UserError, match="contradicts itself: encoder.embed_tokens.weight"):
        interop.load_base(path, config, tiny.abstract(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tied": True}, "contradicts itself: lm_head.weight"),
        ({"num_decoder_layers": 1}, "states num_decoder_layers = 2, the model has 1"),
        ({"gated": False}, "states gated = True, the model has False"),
        ({"vocab_size": 50}, r"embed/embedding comes from shared.weight .*vocabulary \(40\) is smaller than the model's \(50\)"),
    ],
)
def test_another_architecture_is_refused(tmp_path, changes, said):
    pytest.importorskip("transformers")
    tiny.save_huggingface(tiny.huggingface_model("t5", tiny.V1_1), tmp_path)
    config = dataclasses.replace(tiny.V1_1, **changes)
    with pytest.raises(UserError, match=said):
        interop.load_base(str(tmp_path), config, tiny.abstract(config))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_decoder_layers": 1}, "unused checkpoint entry: decoder.block.1"),
        ({"num_encoder_layers": 4}, "missing parameter: encoder/layers/.* encoder.block.2"),
        ({"gated": False}, "missing parameter: (en|de)coder/layers/feed_forward/mlp/wi/kernel"),
        ({"d_kv": 5}, r"wrong shape: .*wanted \[15, 16\], got \[12, 16\]"),
        ({"vocab_size": 30}, r"vocabulary \(40\) is larger than the model's \(30\)"),
    ],
)
def test_without_a_configuration_the_entries_tell(tmp_path, changes, said):
    pytest.importorskip("transformers")
    tiny.save_huggingface(tiny.huggingface_model("t5", tiny.V1_1), tmp_path)
    (tmp_path / "config.json").unlink()
    config = dataclasses.replace(tiny.V1_1, **changes)
    with pytest.raises(UserError, match=said):
        interop.load_base(str(tmp_path), config, tiny.abstract(config))


def test_an_unknown_activation_is_refused():
    with pytest.raises(UserError, match="'silu'"):
        huggingface.config_fields({"feed_forward_proj": "silu"})
