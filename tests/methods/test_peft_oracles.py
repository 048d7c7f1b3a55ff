"""Our methods beside PEFT's, on the same random T5 with the same random adapter values.

Agreement is the largest difference over the largest absolute logit, at the positions that count: 1e-4 at most, in float32.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import interop
from prompt_tuning.interop.huggingface import layer_names
from prompt_tuning.methods import ia3, lora
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.lora import Lora
from prompt_tuning.methods.prefix import Prefix, drop_network
from tests.interop import tiny

# PEFT uses a name that transformers is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

# PEFT takes the width of a prefix's embedding for the width of the keys of all heads.
CONFIG = dataclasses.replace(tiny.V1_1, d_model=12, unroll_layers=False)
PATTERNS = {"q": "query", "k": "key", "v": "value", "o": "out", "wi_0": "gate", "wi_1": "wi", "wo": "wo"}


def pair(folder, peft_config, method):
    """PEFT's model with random adapter values, and ours on the same base with the method attached, its values still its own."""
    import peft
    import torch

    theirs = tiny.huggingface_model("t5", CONFIG)
    with torch.no_grad():
        # PEFT gives prefix keys the relative bias of positions before the sequence, ours is zero: without it the two must agree.
        if isinstance(method, Prefix):
            theirs.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.zero_()
        tiny.save_huggingface(theirs, folder)
        values, _ = interop.load_base(str(folder), CONFIG, tiny.abstract(CONFIG))
        theirs = peft.get_peft_model(theirs, peft_config).eval()
        generator = torch.Generator().manual_seed(1)
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                start = 1.0 if "ia3" in name or "magnitude" in name else 0.0
                parameter.copy_(start + 0.3 * torch.randn(parameter.shape, generator=generator))
    model = tiny.model_with(CONFIG, values)
    method.attach(model, jax.random.key(0), vocabulary=None)
    return theirs, model


def their_values(theirs, name, suffix):
    """The values of PEFT's modules, at the place of the linear layer we call `name`, stacked over layers."""
    stack, _, rest = name.split("/", 2)
    entry = layer_names(gated=True)[stack][f"{rest}/kernel"].removesuffix(".weight")
    state = theirs.state_dict()
    return jnp.asarray(np.stack([state[f"base_model.model.{stack}.block.{i}.{entry}.{suffix}"].numpy() for i in range(2)]))


def batch_of():
    rng = np.random.default_rng(0)
    segments = [(np.arange(n) < np.array(lengths)[:, None]).astype(np.int32) for n, lengths in ((9, [9, 4]), (6, [6, 3]))]
    tokens = [rng.integers(2, CONFIG.vocab_size, each.shape).astype(np.int32) * each for each in segments]
    names = ("encoder_input_tokens", "decoder_input_tokens", "encoder_segment_ids", "decoder_segment_ids")
    return dict(zip(names, (*tokens, *segments), strict=True))


@jax.jit
def forward(model, batch):
    return model(batch)


def agree(theirs, model):
    import torch

    batch = batch_of()
    with torch.no_grad():
        wanted = theirs(
            input_ids=torch.from_numpy(batch["encoder_input_tokens"]).long(),
            attention_mask=torch.from_numpy(batch["encoder_segment_ids"]).long(),
            decoder_input_ids=torch.from_numpy(batch["decoder_input_tokens"]).long(),
        ).logits.numpy()
    ours = np.asarray(forward(model, batch))
    counted = batch["decoder_segment_ids"] > 0
    assert np.abs(ours - wanted)[counted].max() <= 1e-4 * np.abs(wanted[counted]).max()


LORAS = {
    "lora": (["q", "v"], {"r": 3, "lora_alpha": 5}, Lora(rank=3, alpha=5.0)),
    "rslora": (list(PATTERNS), {"r": 3, "lora_alpha": 5, "use_rslora": True}, Lora(rank=3, alpha=5.0, rank_stabilized=True)),
    "dora": (["k", "o", "wi_0", "wo"], {"r": 3, "lora_alpha": 5, "use_dora": True}, Dora(rank=3, alpha=5.0)),
}


@pytest.mark.parametrize("kind", LORAS)
def test_low_rank_changes_give_pefts_logits_before_and_after_merging(kind, tmp_path):
    import peft

    chosen, settings, method = LORAS[kind]
    method = dataclasses.replace(method, targets=tuple(f".*/{PATTERNS[name]}" for name in chosen))
    theirs, model = pair(tmp_path, peft.LoraConfig(target_modules=chosen, **settings), method)
    for name, module in lora.sites.modules(model, lora.Linear).items():
        if module.delta is not None:
            module.delta.down.set_value(their_values(theirs, name, "lora_A.default.weight").swapaxes(-1, -2))
            module.delta.up.set_value(their_values(theirs, name, "lora_B.default.weight").swapaxes(-1, -2))
            if kind == "dora":
                module.delta.magnitude.set_value(their_values(theirs, name, "lora_magnitude_vector.default.weight"))
    agree(theirs, model)
    unmerge = lora.merge(model)
    agree(theirs, model)
    merged = np.array(model.encoder.layers.self_attention.attention.query.kernel[...])
    unmerge()
    found = np.array(model.encoder.layers.self_attention.attention.query.kernel[...])
    assert ("q" in chosen) == (np.abs(found - merged).max() > 1e-2)
    lora.merge(model)
    agree(theirs, model)


def test_ia3_gives_pefts_logits_before_and_after_merging(tmp_path):
    import peft

    config = peft.IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"])
    theirs, model = pair(tmp_path, config, ia3.IA3())
    for name, module in ia3.sites.modules(model, nnx.Module).items():
        for socket, linear in (("k_scale", "key"), ("v_scale", "value"), ("scale", "wo")):
            if isinstance(getattr(module, socket, None), ia3.Scale):
                value = their_values(theirs, f"{name}/{linear}", "ia3_l.default")
                getattr(module, socket).scale.set_value(value.reshape(2, -1))
    agree(theirs, model)
    ia3.merge(model)
    agree(theirs, model)


def test_a_decoders_prefix_gives_pefts_logits_with_and_without_its_network(tmp_path):
    import peft

    config = peft.PrefixTuningConfig(
        task_type="SEQ_2_SEQ_LM",
        num_virtual_tokens=5,
        num_layers=2,
        num_attention_heads=CONFIG.num_heads,
        token_dim=CONFIG.d_model,
        prefix_projection=True,
        encoder_hidden_size=7,
    )
    method = Prefix(length=5, targets=("decoder/.*self_attention/attention",), hidden=7)
    theirs, model = pair(tmp_path, config, method)
    state = {name: value.numpy() for name, value in theirs.prompt_encoder.default.state_dict().items()}
    network = model.decoder.generator.networks["self_attention"]
    heads = (2, 2, CONFIG.num_heads, CONFIG.d_kv)
    # In an encoder-decoder PEFT lays two copies of all layers' prefixes end to end and deals them out by fours: layer i gets that of 2 i.
    dealt = [2 * layer % 2 for layer in range(2)]
    network.embedding.set_value(jnp.asarray(state["embedding.weight"]))
    network.wi.set_value(jnp.asarray(state["transform.0.weight"].T))
    network.wi_bias.set_value(jnp.asarray(state["transform.0.bias"]))
    network.wo.set_value(jnp.asarray(state["transform.2.weight"].T.reshape(7, *heads)[:, dealt]))
    network.wo_bias.set_value(jnp.asarray(state["transform.2.bias"].reshape(heads)[dealt]))
    agree(theirs, model)
    drop_network(model)
    agree(theirs, model)
    assert model.decoder.layers.self_attention.attention.prefix.keys.shape == (2, CONFIG.num_heads, 5, CONFIG.d_kv)
