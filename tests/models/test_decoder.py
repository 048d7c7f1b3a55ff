"""What must hold of any decoder, tried on one that has most choices at once: grouped queries, windows, caps, two rotary bases, tied."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.data import features
from prompt_tuning.data.features import PromptLayout
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prompt import PromptRows
from prompt_tuning.models.decoder import Decoder, DecoderConfig
from prompt_tuning.models.layers import Tunable
from prompt_tuning.planning.counting import operations
from tests.interop import tiny_decoders as tiny

CONFIG = DecoderConfig(
    vocab_size=40,
    d_model=16,
    d_ff=24,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_width=6,
    norm_plus_one=True,
    post_norms=True,
    qk_norm=True,
    layer_kinds="LG",
    window=4,
    local_rope_base=100.0,
    attention_cap=5.0,
    logit_cap=9.0,
    scaled_embedding=True,
    tied=True,
    unroll_layers=False,
)
GPT2_LIKE = dataclasses.replace(
    CONFIG, positions="learned", max_positions=32, norm="layer", gated=False, qkv_bias=True, layer_kinds="G", scaled_embedding=False
)
RNG = np.random.default_rng(0)
PROMPT = RNG.normal(size=(3, 16)).astype(np.float32)


class Prefix(nnx.Module):
    """Key/value prefixes of two layers, as prefix tuning plugs them in."""

    def __init__(self, length: int, heads: int = 2, width: int = 6):
        draws = np.random.default_rng(7).normal(size=(2, 2, heads, length, width)).astype(np.float32)
        self.keys, self.values = (Tunable(jnp.asarray(draw)) for draw in draws)

    def __call__(self):
        return self.keys[...], self.values[...]


def model_of(config, *, prompt=False, prefix=0):
    values = {name: drawn(name, leaf.shape) for name, leaf in tiny.abstract(dataclasses.replace(config, dtype="float32")).items()}
    model = tiny.model_with(config, values)
    if prompt:
        model.embed.prompt = PromptRows(jnp.asarray(PROMPT))
    if prefix:
        model.decoder.layers.self_attention.attention.prefix = Prefix(prefix)
    return model


def drawn(name, shape):
    rng = np.random.default_rng(sum(map(ord, name)))
    return (
        rng.uniform(0.1, 0.4, shape).astype(np.float32)
        if len(shape) < 3 and "embed" not in name
        else (rng.normal(size=shape) * shape[-1] ** -0.5).astype(np.float32)
    )


_forward = jax.jit(lambda model, batch: model(batch))


def logits(model, batch):
    return np.asarray(_forward(model, {name: jnp.asarray(x) for name, x in batch.items()}))


def sequence(tokens, *, prompt=0, length=None, first_segment=1, both_ways=0):
    """A row of one example, padded to `length`: prompt slots, then tokens."""
    tokens = np.concatenate([np.zeros(prompt, np.int32), np.asarray(tokens, np.int32)])
    slots = np.where(np.arange(len(tokens)) < prompt, np.arange(len(tokens)), -1)
    row = {
        "decoder_input_tokens": tokens,
        "decoder_segment_ids": np.full(len(tokens), first_segment),
        "decoder_prompt_slots": slots,
        "decoder_positions": np.arange(len(tokens)),
        "decoder_bidirectional": np.arange(len(tokens)) < both_ways,
    }
    padding = (length or len(tokens)) - len(tokens)
    return {name: np.pad(x, (0, padding), constant_values=-1 if "slots" in name else 0).astype(np.int32)[None] for name, x in row.items()}


def unpacked(batch):
    return {name: x for name, x in batch.items() if name != "decoder_positions"}


FIRST, SECOND = RNG.integers(1, 40, 6), RNG.integers(1, 40, 5)


@pytest.mark.parametrize("config", [CONFIG, GPT2_LIKE], ids=["rope", "learned"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_packed_examples_get_the_logits_they_get_alone(config, prefix):
    model = model_of(config, prompt=True, prefix=prefix)
    alone = [logits(model, unpacked(sequence(tokens, prompt=3, length=20))) for tokens in (FIRST, SECOND)]
    rows = [sequence(FIRST, prompt=3), sequence(SECOND, prompt=3, first_segment=2, length=11)]
    packed = logits(model, {name: np.concatenate([row[name] for row in rows], axis=1) for name in rows[0]})
    np.testing.assert_allclose(packed[0, :9], alone[0][0, :9], atol=2e-5)
    np.testing.assert_allclose(packed[0, 9:17], alone[1][0, :8], atol=2e-5)


@pytest.mark.parametrize("config", [CONFIG, GPT2_LIKE], ids=["rope", "learned"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_cached_steps_give_the_logits_of_the_whole_row(config, prefix):
    """Rows of different lengths: their padding stands between the input and what is appended."""
    model = model_of(config, prompt=True, prefix=prefix)
    whole = [logits(model, unpacked(sequence(tokens, prompt=3, length=20)))[0] for tokens in (FIRST, SECOND)]
    given = [sequence(FIRST[:4], prompt=3, length=8), sequence(SECOND[:2], prompt=3, length=8)]
    given = {name: jnp.asarray(np.concatenate([each[name] for each in given])) for name in given[0]}
    cache = model.empty_cache(2, length=10)
    step = jax.jit(lambda model, *given, **more: model.decode_step(*given, **more))
    got, cache = step(
        model, given["decoder_input_tokens"], cache, slots_BT=given["decoder_prompt_slots"], valid_BT=given["decoder_segment_ids"]
    )
    np.testing.assert_allclose(got[0, :7], whole[0][:7], atol=2e-5)
    np.testing.assert_allclose(got[1, :5], whole[1][:5], atol=2e-5)
    for n in range(2):
        got, cache = step(model, jnp.asarray([[FIRST[4 + n]], [SECOND[2 + n]]], jnp.int32), cache)
        np.testing.assert_allclose(got[0, 0], whole[0][7 + n], atol=2e-5)
        np.testing.assert_allclose(got[1, 0], whole[1][5 + n], atol=2e-5)


INPUTS = [{"inputs": FIRST, "targets": SECOND}, {"inputs": SECOND[:3], "targets": FIRST[:2]}]


@pytest.mark.parametrize("mask", ["causal", "prefix"])
def test_inputs_and_targets_apart_are_one_sequence_packed_or_cached_too(mask):
    config = dataclasses.replace(CONFIG, mask=mask)
    model = model_of(config, prompt=True)
    sizes = {"input_length": 8, "target_length": 6, "prompt": PromptLayout(encoder_length=3)}
    batch = features.layout(INPUTS, **sizes)
    got = logits(model, batch)
    for row, example in enumerate(INPUTS):
        tokens = np.concatenate([example["inputs"], batch["decoder_input_tokens"][row, : len(example["targets"])]])
        known = 3 + len(example["inputs"])
        whole = logits(model, unpacked(sequence(tokens, prompt=3, both_ways=known, length=20)))[0]
        np.testing.assert_allclose(got[row, : len(example["targets"])], whole[known : 3 + len(tokens)], atol=2e-5)
    packed = features.layout_rows([INPUTS], **(sizes | {"input_length": 16, "target_length": 12}))
    packed_logits = logits(model, packed)[0]
    np.testing.assert_allclose(packed_logits[:5], got[0, :5], atol=2e-5)
    np.testing.assert_allclose(packed_logits[5:7], got[1, :2], atol=2e-5)
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    segments = batch["encoder_segment_ids"]
    encoded = model.encode(batch["encoder_input_tokens"], segment_ids_BS=segments, slots_BS=batch["encoder_prompt_slots"])
    cached, _ = model.decode_step(batch["decoder_input_tokens"], model.init_cache(encoded, segments, length=6))
    np.testing.assert_allclose(cached[0, :5], got[0, :5], atol=2e-5)
    np.testing.assert_allclose(cached[1, :2], got[1, :2], atol=2e-5)


def test_a_position_sees_no_later_one_but_within_what_is_marked():
    config = dataclasses.replace(CONFIG, mask="prefix", layer_kinds="G")
    model = model_of(config)
    changed = FIRST.copy()
    changed[2] = (changed[2] + 1) % 40
    for both_ways, first_different in ((0, 2), (4, 0)):
        before, after = (logits(model, sequence(tokens, both_ways=both_ways))[0] for tokens in (FIRST, changed))
        differs = np.abs(before - after).max(axis=-1) > 1e-6
        np.testing.assert_array_equal(differs, np.arange(6) >= first_different)


def test_cached_steps_take_what_is_marked_to_see_both_ways():
    config = dataclasses.replace(CONFIG, mask="prefix")
    model = model_of(config)
    whole = logits(model, unpacked(sequence(FIRST, both_ways=4)))[0]
    given = {name: jnp.asarray(x) for name, x in sequence(FIRST[:4], both_ways=4).items()}
    got, cache = model.decode_step(
        given["decoder_input_tokens"], model.empty_cache(1, length=6), bidirectional_BT=given["decoder_bidirectional"]
    )
    np.testing.assert_allclose(got[0], whole[:4], atol=2e-5)
    got, _ = model.decode_step(jnp.asarray(FIRST[None, 4:], jnp.int32), cache)
    np.testing.assert_allclose(got[0], whole[4:], atol=2e-5)


def test_layers_unrolled_scanned_and_recomputed_agree():
    batch = unpacked(sequence(FIRST))
    wanted = logits(model_of(CONFIG), batch)
    for changes in ({"unroll_layers": True}, {"remat": "full"}):
        np.testing.assert_allclose(logits(model_of(dataclasses.replace(CONFIG, **changes)), batch), wanted, atol=1e-5)


def test_bfloat16_runs_near_float32():
    batch = unpacked(sequence(FIRST, prompt=3))
    wanted = logits(model_of(CONFIG, prompt=True), batch)
    got = logits(model_of(dataclasses.replace(CONFIG, dtype="bfloat16"), prompt=True), batch)
    assert np.abs(got - wanted).max() < 0.05 * np.abs(wanted).max()


def test_only_the_prompt_gets_a_gradient_and_dropout_needs_its_key():
    config = dataclasses.replace(CONFIG, dropout_rate=0.5)
    graphdef, tuned, frozen = trainable.split(model_of(config, prompt=True, prefix=2), Tunable)
    batch = {name: jnp.asarray(x) for name, x in unpacked(sequence(FIRST, prompt=3)).items()}

    @jax.jit
    def gradient(tuned, key):
        return jax.grad(lambda tuned: jnp.mean(nnx.merge(graphdef, tuned, frozen)(batch, dropout_key=key)[0, -1] ** 2))(tuned)

    grads = [trainable.named(nnx.to_pure_dict(gradient(tuned, jax.random.key(n)))) for n in range(2)]
    assert set(grads[0]) == {
        "embed/prompt/rows",
        "decoder/layers/self_attention/attention/prefix/keys",
        "decoder/layers/self_attention/attention/prefix/values",
    }
    assert all(np.abs(value).max() > 0 for value in grads[0].values())
    assert any(not np.array_equal(grads[0][name], grads[1][name]) for name in grads[0])


class Stub(nnx.Module):
    """A plugged-in function of one array with layers in front."""

    def __init__(self, value, function):
        self.value, self.function = Tunable(jnp.asarray(value, jnp.float32)), function

    def __call__(self, *inputs, key=None):
        return self.function(self.value[...], *inputs)


def test_sockets_do_what_changed_weights_do():
    """Added to a product: a change of its kernel. Scales of keys, values and inner activations: scaled columns, or rows of what follows."""
    base = model_of(dataclasses.replace(CONFIG, mlp_bias=True))
    values = {name: np.asarray(v.get_value()) for name, v in trainable.named_variables(base)}
    changed, layers = dict(values), base.decoder.layers
    attention, mlp = layers.self_attention.attention, layers.feed_forward.mlp
    rng = np.random.default_rng(3)

    def change(name, update):
        changed[f"decoder/layers/{name}/kernel"] = update(values[f"decoder/layers/{name}/kernel"])

    delta, key_scale, value_scale, inner_scale = (rng.uniform(0.5, 1.5, shape) for shape in ((2, 16, 24), (2, 12), (2, 12), (2, 24)))
    attention.query.delta = Stub(delta, lambda w_IO, x_BSI, y_BSO, kernel_IO: y_BSO + x_BSI @ w_IO)
    attention.k_scale, attention.v_scale, mlp.scale = (Stub(scale, lambda scale: scale) for scale in (key_scale, value_scale, inner_scale))
    change("self_attention/attention/query", lambda w: w + delta)
    change("self_attention/attention/key", lambda w: w * key_scale[:, None])
    change("self_attention/attention/value", lambda w: w * value_scale[:, None])
    change("feed_forward/mlp/wo", lambda w: w * inner_scale[:, :, None])
    batch = unpacked(sequence(FIRST))
    wanted = logits(tiny.model_with(base.config, jax.tree.map(np.float32, changed)), batch)
    np.testing.assert_allclose(logits(base, batch), wanted, atol=2e-5)
    # After each block's output comes its adapter; beside the block, from its normed input, what runs in parallel.
    layers.self_attention.adapter = Stub(np.zeros(2), lambda zero, y_BSD: y_BSD + zero)
    layers.feed_forward.parallel = Stub(np.zeros(2), lambda zero, x_BSD: x_BSD * zero)
    np.testing.assert_allclose(logits(base, batch), wanted, atol=2e-5)
    layers.feed_forward.parallel = Stub(np.ones(2), lambda one, x_BSD: x_BSD * one)
    assert np.abs(logits(base, batch) - wanted).max() > 1e-3


def test_a_fresh_model_starts_near_uniform():
    model = Decoder(dataclasses.replace(CONFIG, logit_cap=None, scaled_embedding=False), nnx.Rngs(params=0))
    assert np.std(logits(model, unpacked(sequence(FIRST)))) < 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm": "batch"}, r"DecoderConfig.norm: wanted one of \['rms', 'layer'\], got 'batch'"),
        ({"num_kv_heads": 3}, "wanted a divisor of num_heads"),
        ({"head_width": 5}, "even width"),
        ({"layer_kinds": "LX"}, "layer_kinds: wanted letters"),
    ],
)
def test_settings_that_make_no_model_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(CONFIG, **changes)


def test_a_row_longer_than_the_table_of_positions_is_refused():
    with pytest.raises(UserError, match="a row of 33 positions is longer than the model's 32"):
        jax.eval_shape(lambda batch: model_of(GPT2_LIKE)(batch), unpacked(sequence(np.ones(33))))


@pytest.mark.parametrize("changes", [{}, {"mask": "prefix"}, {"num_layers": 1}], ids=["causal", "prefix-LM", "one layer"])
def test_the_last_layer_is_computed_for_the_targets_alone_where_layers_are_unrolled(changes):
    segments = np.ones((2, 9), np.int32)
    segments[1, 6:] = 0
    rng = np.random.default_rng(3)
    batch = {"encoder_segment_ids": segments, "decoder_segment_ids": np.ones((2, 3), np.int32)}
    batch |= {f"{side}_input_tokens": rng.integers(1, 40, batch[f"{side}_segment_ids"].shape) for side in ("encoder", "decoder")}
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    made, counted = [], []
    for unroll in (True, False):
        graphdef, state = nnx.split(model_of(dataclasses.replace(CONFIG, **changes, unroll_layers=unroll), prefix=2 if not changes else 0))

        def loss(state, graphdef=graphdef):
            logits = nnx.merge(graphdef, state)(batch)
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1)), logits

        made.append(jax.jit(jax.value_and_grad(loss, has_aux=True))(state))
        counted.append(operations(jax.make_jaxpr(loss)(state).jaxpr))
    # The same products of fewer rows, in float32.
    for ours, theirs in zip(*(jax.tree.leaves(each) for each in made), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert counted[0] < counted[1]
