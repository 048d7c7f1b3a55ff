"""Prefixes: what attention makes of them, against NumPy, and what their networks leave."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning import trainable
from prompt_tuning.errors import UserError
from prompt_tuning.methods.prefix import KeysValues, Prefix, drop_network
from prompt_tuning.models.layers import MASKED, Attention, Bias
from prompt_tuning.models.t5 import T5
from tests.interop import tiny

KEY = jax.random.key(0)


def attach(method):
    model = tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1))
    return model, method.attach(model, KEY, vocabulary=None)


def test_attention_with_a_prefix_is_that_of_numpy():
    rng = np.random.default_rng(0)
    heads, width, length, queries, keys = 2, 4, 3, 5, 6
    attention = Attention(nnx.Rngs(params=0), width=8, num_heads=heads, head_width=width, dropout_rate=0.0, dtype="float32")
    prefix = rng.normal(size=(2, heads, length, width)).astype(np.float32)
    x, memory = (rng.normal(size=(2, n, 8)).astype(np.float32) for n in (queries, keys))
    bias = rng.normal(size=(1, heads, queries, keys)).astype(np.float32)
    seen = np.array([[1] * 6, [1, 1, 1, 0, 0, 0]])
    attention.prefix = KeysValues(*map(jnp.asarray, prefix))
    mask = np.where(seen, 0.0, MASKED)[:, None, None].astype(np.float32)
    ours = np.asarray(attention(jnp.asarray(x), attention.keys_values(jnp.asarray(memory)), Bias(jnp.asarray(bias), jnp.asarray(mask))))

    weights = {name: np.asarray(getattr(attention, name).kernel[...], np.float64) for name in ("query", "key", "value", "out")}
    for row in range(2):
        kept = memory[row][seen[row] == 1].astype(np.float64)
        heard = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            k = np.concatenate([prefix[0, head], kept @ weights["key"][:, part]])
            v = np.concatenate([prefix[1, head], kept @ weights["value"][:, part]])
            scores = x[row] @ weights["query"][:, part] @ k.T
            scores[:, length:] += bias[0, head][:, seen[row] == 1]  # None on the prefix.
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heard.append(scores / scores.sum(-1, keepdims=True) @ v)
        np.testing.assert_allclose(ours[row], np.concatenate(heard, -1) @ weights["out"], atol=1e-5)


def test_there_is_a_prefix_for_each_kind_of_attention_and_patterns_choose():
    model, sources = attach(Prefix(length=2, hidden=None))
    three = {f"{name}/attention/prefix" for name in (
        "encoder/layers/self_attention", "decoder/layers/self_attention", "decoder/layers/cross_attention")}  # fmt: skip
    assert set(sources) == {f"{name}/{part}" for name in three for part in ("keys", "values")}
    assert model.encoder.layers.self_attention.attention.prefix.keys.shape == (2, 3, 2, 4)
    _, sources = attach(Prefix(length=2, targets=(".*cross_attention/attention",)))
    assert {name.rsplit("/", 1)[0] for name in sources} == {"decoder/generator/networks/cross_attention"}


def test_first_values_have_the_spread_asked_for():
    model, _ = attach(Prefix(length=200, hidden=None, std=0.1))
    assert abs(float(model.decoder.layers.cross_attention.attention.prefix.values[...].std()) - 0.1) < 0.005


def test_dropping_the_network_leaves_what_it_made():
    model, _ = attach(Prefix(length=4, hidden=6))
    made = model.decoder.generator.networks["cross_attention"]()
    drop_network(model)
    assert model.decoder.generator is None and model.encoder.generator is None
    for ours, theirs in zip(model.decoder.layers.cross_attention.attention.prefix(), made, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    plain = nnx.eval_shape(lambda: _with(Prefix(length=4, hidden=None)))
    assert {n: v.get_value().shape for n, v in trainable.named_variables(model)} == {
        n: v.get_value().shape for n, v in trainable.named_variables(plain)
    }
    with pytest.raises(UserError, match="no network that makes prefixes"):
        drop_network(model)


def _with(method):
    model = T5(tiny.V1_1, nnx.Rngs(params=0))
    method.attach(model, KEY, vocabulary=None)
    return model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 0}, "Prefix.length: wanted a whole number of 1 or more, got 0"),
        ({"hidden": 0}, "Prefix.hidden: wanted a whole number of 1 or more, got 0"),
        ({"std": -1.0}, "Prefix.std: wanted 0 or more"),
        ({"targets": ("nothing",)}, "Prefix.targets: pattern 'nothing' matches no layer"),
        ({"targets": ("(",)}, "not a regular expression"),
        ({"targets": ()}, "Prefix.targets is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError) as refused:
        nnx.eval_shape(lambda: _with(Prefix(**settings)))
    assert message in str(refused.value)


@pytest.mark.parametrize("hidden", [None, 4])
def test_a_place_that_is_taken_is_refused(hidden):
    def twice():
        model = _with(Prefix(hidden=hidden))
        Prefix(hidden=hidden).attach(model, KEY, vocabulary=None)
        return model

    with pytest.raises(UserError, match="already has a KeysValues|no free place"):
        nnx.eval_shape(twice)
