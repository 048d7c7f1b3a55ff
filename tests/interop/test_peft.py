"""PEFT's adapter folders: PEFT computes from ours what we compute, and nothing is lost on the way there and back.

Agreement is the largest difference over the largest absolute logit: 1e-4 at most, in float32.
"""

import copy
import dataclasses
import functools
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import interop, trainable
from prompt_tuning.errors import UserError
from prompt_tuning.interop import adapter_files
from prompt_tuning.interop import peft as ours
from prompt_tuning.methods.adapter import Adapter
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.from_peft import FromPeft
from prompt_tuning.methods.ia3 import IA3
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.methods.prefix import Prefix
from prompt_tuning.methods.prompt import Prompt, Uniform
from prompt_tuning.models.layers import Tunable
from tests.interop import tiny, tiny_decoders

# PEFT uses a name that transformers is about to drop, and says what it does for GPT-2's layers and for heads.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*fan_in_fan_out.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*save_embedding_layers.*:UserWarning"),
]

PROMPT = Prompt(length=3, initializer=Uniform())
METHODS = {
    "prompt": PROMPT,
    "prefix": Prefix(length=3, hidden=None),
    "lora": Lora(rank=2, alpha=3.0, targets=(".*/(query|value|wo)",)),
    "rslora": Lora(rank=3, alpha=5.0, rank_stabilized=True, targets=(".*/out", "decoder/.*/(wi|gate)")),
    "dora": Dora(rank=2, alpha=3.0, targets=(".*/(query|key|out|wo)",)),
    "ia3": IA3(),
}
T5_METHODS = [name for name in METHODS if name != "prefix"]
# GPT-2 has one product for query, key and value, and so has latent attention for keys and values.
DECODERS = {
    "gpt2": {"prompt": PROMPT, "prefix": METHODS["prefix"], "lora": Lora(rank=2, alpha=3.0, targets=(".*/(out|wi|wo)",))},
    "llama3": METHODS,
    "llama_linear_biases": {name: METHODS[name] for name in ("dora", "ia3")},
    "qwen2": {name: METHODS[name] for name in ("dora", "ia3", "prefix")},
    "gemma": {"prompt": PROMPT},
    "gemma3": {"prompt": PROMPT, "lora": METHODS["lora"]},
    "deepseek_v3": {
        "lora": Lora(rank=2, alpha=3.0, targets=(".*/(query|query_down|down|up|out)",)),
        "dora": Dora(rank=2, targets=(".*/(query|down)",)),
    },
}
PAIRS = [("t5", name) for name in T5_METHODS] + [(family, name) for family, methods in DECODERS.items() for name in methods]
QUICK = {"t5", "llama3", "deepseek_v3"}
every_pair = pytest.mark.parametrize(
    ("family", "name"), [pytest.param(*each, marks=() if each[0] in QUICK else pytest.mark.slow) for each in PAIRS]
)


def method_of(family, name):
    return METHODS[name] if family == "t5" else DECODERS[family][name]


@functools.cache
def base_of(family):
    """A random base as transformers has it, and our configuration and values of the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if family == "t5":
            theirs, config = tiny.huggingface_model("t5", tiny.V1_1), tiny.V1_1
            tiny.save_huggingface(theirs, folder)
            return theirs, config, interop.load_base(name, config, tiny.abstract(config))[0]
        theirs = tiny_decoders.huggingface_model(family)
        tiny_decoders.save(theirs, folder)
        model, values = tiny_decoders.load(folder)
        return theirs, model.config, values


def ours_of(family):
    """Our base of the family."""
    _, config, values = base_of(family)
    return (tiny if family == "t5" else tiny_decoders).model_with(config, values)


def pair(family):
    """A base as transformers has it, and ours with the same weights, both fresh."""
    return copy.deepcopy(base_of(family)[0]), ours_of(family)


def tunables(model):
    return {name: np.asarray(v.get_value()) for name, v in trainable.named_variables(model) if isinstance(v, Tunable)}


def moved(model, seed=0):
    """Puts what the model trains some way off its first values."""
    rng = np.random.default_rng(seed)
    for name, value in tunables(model).items():
        change = 0.3 * rng.normal(size=value.shape).astype(np.float32)
        functools.reduce(getattr, name.split("/"), model).set_value(jnp.asarray(value + change))
    return model


def fresh():
    """Our tiny T5 with random weights."""
    return tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1))


@functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})
def forward(model, batch):
    return model(batch)


def our_logits(model, tokens, targets, length):
    """Logits of a T5's targets, or of a decoder's tokens, behind a prompt of `length` rows."""
    slots = np.concatenate([np.tile(np.arange(length), (len(tokens), 1)), np.full(tokens.shape, -1)], 1).astype(np.int32)
    padded = np.pad(tokens, ((0, 0), (length, 0)))
    side = "encoder" if hasattr(model, "encoder") else "decoder"
    batch = {f"{side}_input_tokens": padded, f"{side}_segment_ids": np.ones_like(padded)}
    if length:
        batch[f"{side}_prompt_slots"] = slots
    if side == "encoder":
        batch |= {"decoder_input_tokens": targets, "decoder_segment_ids": np.ones_like(targets)}
        return np.asarray(forward(model, batch))
    return np.asarray(forward(model, batch))[:, length:]


def their_logits(theirs, tokens, targets, length):
    import torch

    inputs = {"input_ids": torch.from_numpy(tokens).long(), "attention_mask": torch.ones(tokens.shape).long()}
    if hasattr(theirs.config, "is_encoder_decoder") and theirs.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.from_numpy(targets).long()
        length = 0
    with torch.no_grad():
        return theirs(**inputs).logits.numpy()[:, length:]


@every_pair
def test_peft_computes_from_our_folder_what_we_compute(family, name, tmp_path):
    import peft

    method = method_of(family, name)
    theirs, model = pair(family)
    base_only = our_logits(model, *words(model), 0)
    method.attach(model, jax.random.key(0), vocabulary=None)
    moved(model)
    (tmp_path / "adapter").mkdir()
    adapter_files.write(tmp_path / "adapter", ours.to_adapter(model, method, base="a base"))
    wrapped = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "adapter")).eval()
    length = method.layout.encoder_length
    found, wanted = our_logits(model, *words(model), length), their_logits(wrapped, *words(model), length)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert np.abs(found - base_only).max() > 1e-2 * np.abs(wanted).max(), "the adapter matters"


def words(model):
    rng = np.random.default_rng(0)
    return tuple(rng.integers(3, model.config.vocab_size, (2, length)).astype(np.int32) for length in (7, 4))


@every_pair
def test_what_goes_out_comes_back_bit_for_bit(family, name, tmp_path):
    method = method_of(family, name)
    model = ours_of(family)
    graphdef, state = nnx.split(model)
    method.attach(model, jax.random.key(0), vocabulary=None)
    moved(model)
    (tmp_path / "adapter").mkdir()
    adapter_files.write(tmp_path / "adapter", ours.to_adapter(model, method))
    again = nnx.merge(graphdef, state)
    FromPeft(str(tmp_path / "adapter")).attach(again, jax.random.key(1), vocabulary=None)
    same(tunables(again), tunables(model))
    np.testing.assert_array_equal(*(our_logits(each, *words(model), method.layout.encoder_length) for each in (again, model)))
    place = "first" if method.layout.encoder_length else "before"  # PEFT's prompt stands before BOS too.
    assert FromPeft(str(tmp_path / "adapter")).layout == dataclasses.replace(method.layout, placement=place)
    back = FromPeft(str(tmp_path / "adapter")).method(nnx.merge(graphdef, state))
    once_more = ours.to_adapter(again, back)
    same(once_more.entries, adapter_files.read(str(tmp_path / "adapter")).entries)
    assert dict(once_more.settings) == dict(adapter_files.read(str(tmp_path / "adapter")).settings)


def same(found, wanted):
    assert set(found) == set(wanted) and wanted
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].dtype == value.dtype


@settings(max_examples=6, deadline=None)
@given(
    rank=st.integers(1, 8),
    alpha=st.floats(0.25, 64),
    stabilized=st.booleans(),
    decomposed=st.booleans(),
    targets=st.sets(st.sampled_from(["query", "key", "value", "out", "wi", "gate", "wo"]), min_size=1),
    stack=st.sampled_from(["encoder", "decoder", ".*"]),
)
def test_every_low_rank_setting_comes_back(rank, alpha, stabilized, decomposed, targets, stack):
    kind = Dora if decomposed else Lora
    method = kind(rank=rank, alpha=alpha, rank_stabilized=stabilized, targets=tuple(f"{stack}/.*/{each}" for each in sorted(targets)))
    model = fresh()
    method.attach(model, jax.random.key(0), vocabulary=None)
    adapter = ours.to_adapter(model, method)
    back, values = ours.from_adapter(dataclasses.replace(adapter, settings=json.loads(json.dumps(dict(adapter.settings)))), fresh())
    assert type(back) is kind and back.scale == method.scale and back.rank == rank
    same(values, tunables(model))


THEIRS = {
    "lora": ("LoraConfig", {"r": 3, "lora_alpha": 5, "target_modules": ["q", "wi_0"], "init_lora_weights": False}),
    "rslora by a pattern": (
        "LoraConfig",
        {"r": 3, "lora_alpha": 7, "use_rslora": True, "target_modules": r"decoder.*\.(k|o)", "init_lora_weights": False},
    ),
    "dora": ("LoraConfig", {"r": 2, "use_dora": True, "target_modules": ["v", "wo"], "init_lora_weights": False}),
    "ia3": ("IA3Config", {"target_modules": ["k", "v", "wo"], "feedforward_modules": ["wo"], "init_ia3_weights": False}),
    "ia3 of the decoder": (
        "IA3Config",
        {"target_modules": r"decoder.*\.(k|wo)", "feedforward_modules": r"decoder.*\.wo", "init_ia3_weights": False},
    ),
    "prompt": ("PromptTuningConfig", {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 4, "num_transformer_submodules": 1}),
    "p-tuning": (
        "PromptEncoderConfig",
        {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 4, "encoder_hidden_size": 6, "num_transformer_submodules": 1},
    ),
}


@pytest.mark.parametrize("name", THEIRS)
def test_an_adapter_that_peft_made_runs_here_and_goes_out_as_it_came(name, tmp_path):
    import peft
    import torch

    kind, chosen = THEIRS[name]
    theirs, model = pair("t5")
    graphdef, state = nnx.split(model)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(theirs, getattr(peft, kind)(**chosen)).eval()
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    method = FromPeft(str(tmp_path / "adapter"))
    method.attach(model, jax.random.key(0), vocabulary=None)
    length = method.layout.encoder_length
    found, wanted = our_logits(model, *words(model), length), their_logits(wrapped, *words(model), length)
    assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()
    out = ours.to_adapter(model, method.method(nnx.merge(graphdef, state)))
    same(out.entries, safetensors.numpy.load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    stated = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    for setting in ("r", "lora_alpha", "use_rslora", "use_dora", "num_virtual_tokens", "token_dim", "num_layers"):
        assert out.settings.get(setting) == stated.get(setting) or setting not in out.settings


def test_pissa_of_peft_begins_from_the_same_base(tmp_path):
    import peft

    theirs, model = pair("t5")
    config = peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q", "wo"], init_lora_weights="pissa")
    peft.get_peft_model(theirs, config).save_pretrained(str(tmp_path / "adapter"))
    base_only = our_logits(model, *words(model), 0)
    method = FromPeft(str(tmp_path / "adapter"))
    assert isinstance(method.method(model), Pissa)
    method.attach(model, jax.random.key(0), vocabulary=None)
    # What was taken out of the base stands in the adapter: nothing has changed but the rounding of a decomposition.
    assert np.abs(our_logits(model, *words(model), 0) - base_only).max() <= 1e-4 * np.abs(base_only).max()
    with pytest.raises(UserError, match="Pissa has no like in PEFT"):
        ours.to_adapter(model, method.method(fresh()))


@functools.cache
def lora_adapter():
    model = fresh()
    method = Lora(rank=2)
    method.attach(model, jax.random.key(0), vocabulary=None)
    return ours.to_adapter(model, method)


def without(adapter, *names):
    return {name: value for name, value in adapter.entries.items() if name not in names}


FIRST = "base_model.model.decoder.block.0.layer.0.SelfAttention.q.lora_A.weight"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": {"peft_type": "LOHA"}}, "peft_type 'LOHA' has no like here"),
        ({"settings": {"rank_pattern": {"q": 4}}}, "rank_pattern = .* has no like here"),
        ({"settings": {"bias": "all"}}, "bias = 'all' in adapter_config.json has no like here"),
        ({"settings": {"init_lora_weights": "olora"}}, "init_lora_weights = 'olora' changes the base"),
        ({"settings": {"use_dora": True}}, r"lacks a part of .* \(magnitude\)"),
        ({"without": FIRST}, r"block\.0\.layer\.0\.SelfAttention\.q\.lora_A\.weight is not there; wanted an adapter of every layer"),
        ({"entries": {"base_model.model.encoder.block.9.x.lora_A.weight": np.ones((2, 3))}}, "nothing in this model takes .*block.9"),
        ({"entries": {FIRST: np.ones((3, 16), "f4")}}, "wanted the same rank in every layer"),
    ],
)
def test_what_does_not_map_is_named(changes, said):
    adapter = lora_adapter()
    entries = without(adapter, changes.get("without")) | changes.get("entries", {})
    with pytest.raises(UserError, match=said):
        ours.from_adapter(adapter_files.Adapter(dict(adapter.settings) | changes.get("settings", {}), entries), fresh())


@pytest.mark.parametrize(
    ("family", "method", "said"),
    [
        ("t5", METHODS["prefix"], "the two compute different functions"),
        ("t5", Prompt(length=2, initializer=Uniform(), stacks="both"), "PEFT puts a prompt before the input alone"),
        ("t5", Prompt(length=2, initializer=Uniform(), placement="suffix"), "PEFT puts a prompt before the input alone"),
        ("t5", Adapter(width=2), "Adapter has no like in PEFT"),
        ("deepseek_v3", Lora(rank=2, targets=("first/.*/wo",)), "wo/delta/down has no place in a PEFT adapter of this model"),
        ("gpt2", Lora(rank=2), "query/delta/down has no place in a PEFT adapter of this model"),
        ("mistral", METHODS["prefix"], "fall out of an attention's window"),
    ],
)
def test_what_peft_has_no_like_of_is_refused(family, method, said):
    model = ours_of(family)
    method.attach(model, jax.random.key(0), vocabulary=None)
    with pytest.raises(UserError, match=said):
        ours.to_adapter(model, method)


def test_an_adapter_of_another_base_or_a_damaged_one_is_named(tmp_path):
    (tmp_path / "adapter").mkdir()
    adapter_files.write(tmp_path / "adapter", lora_adapter())
    other = dataclasses.replace(tiny.V1_1, d_model=12)
    with pytest.raises(
        UserError, match=r"wanted \[2, 12, 2\] for decoder/layers/cross_attention/.*; give the base the adapter was made for"
    ):
        FromPeft(str(tmp_path / "adapter")).attach(tiny.model_with(other, tiny.random_values(other)), jax.random.key(0), vocabulary=None)
    with pytest.raises(UserError, match="no PEFT adapter at .*nowhere: adapter_config.json is not there"):
        adapter_files.read(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="FromPeft.path: wanted the path of an adapter"):
        FromPeft("")
    weights = tmp_path / "adapter" / adapter_files.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="truncated or not safetensors"):
        adapter_files.read(str(tmp_path / "adapter"))
    (tmp_path / "adapter" / adapter_files.CONFIG).write_text("{")
    with pytest.raises(UserError, match="not the JSON of an adapter"):
        adapter_files.read(str(tmp_path / "adapter"))
