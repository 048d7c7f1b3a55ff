"""Bottlenecks and scales on the tiny T5: what they compute, where they stand, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.errors import UserError
from prompt_tuning.methods.adapter import Adapter, Bottleneck
from prompt_tuning.methods.ia3 import IA3, merge
from tests.interop import tiny

KEY = jax.random.key(4)


def attached(method):
    model = tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1))
    return model, method.attach(model, KEY, vocabulary=None)


@pytest.mark.parametrize(("residual", "activation"), [(True, "relu"), (False, "gelu")])
def test_a_bottleneck_is_that_of_numpy(residual, activation):
    rng = np.random.default_rng(0)
    x, down, up = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 6), (6, 4), (4, 6)))
    module = Bottleneck(jnp.asarray(down), jnp.asarray(up), activation=activation, scale=3.0, residual=residual)
    biases = [rng.normal(size=n).astype(np.float32) for n in (4, 6)]
    module.down_bias.set_value(jnp.asarray(biases[0]))
    module.up_bias.set_value(jnp.asarray(biases[1]))
    h = x @ down + biases[0]
    h = np.maximum(h, 0) if activation == "relu" else 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    np.testing.assert_allclose(module(jnp.asarray(x)), (x if residual else 0) + 3.0 * (h @ up + biases[1]), rtol=1e-4, atol=1e-5)


def test_each_placement_fills_its_own_socket():
    model, _ = attached(Adapter(width=2, targets=(".*/feed_forward",)))
    assert model.encoder.layers.feed_forward.adapter.down.shape == (2, 16, 2)
    assert model.encoder.layers.self_attention.adapter is None and model.encoder.layers.feed_forward.parallel is None
    values = model.decoder.layers.feed_forward.adapter.up[...]
    assert 0 < np.abs(values).max() <= 0.02  # Two standard deviations.
    model, _ = attached(Adapter(width=2, placement="parallel"))
    assert model.decoder.layers.cross_attention.parallel is not None and model.decoder.layers.cross_attention.adapter is None
    assert not np.any(model.decoder.layers.cross_attention.parallel.up[...])


def test_patterns_choose_what_is_scaled():
    model, sources = attached(IA3(keys=(), values=("decoder/.*",), feed_forward=("encoder/.*",)))
    assert set(sources) == {
        "decoder/layers/cross_attention/attention/v_scale/scale",
        "decoder/layers/self_attention/attention/v_scale/scale",
        "encoder/layers/feed_forward/mlp/scale/scale",
    }
    assert model.encoder.layers.feed_forward.mlp.scale.scale.shape == (2, 24)


def test_unmerging_scales_brings_the_kernels_back():
    model, _ = attached(IA3())
    kernels = [np.array(each.kernel[...]) for each in _scaled(model)]
    model.encoder.layers.feed_forward.mlp.scale.scale.set_value(jnp.full((2, 24), 2.0))
    model.encoder.layers.self_attention.attention.v_scale.scale.set_value(jnp.linspace(0.5, 2.0, 24).reshape(2, 12))
    unmerge = merge(model)
    assert model.encoder.layers.feed_forward.mlp.scale is None
    np.testing.assert_allclose(_scaled(model)[2].kernel[...], 2 * kernels[2], rtol=1e-6)
    unmerge()
    for each, kernel in zip(_scaled(model), kernels, strict=True):
        np.testing.assert_allclose(each.kernel[...], kernel, rtol=1e-6)
    with pytest.raises(UserError, match="no scale"):
        merge(tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1)))


def _scaled(model):
    encoder = model.encoder.layers
    return encoder.self_attention.attention.key, encoder.self_attention.attention.value, encoder.feed_forward.mlp.wo


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adapter(width=0), "Adapter.width: wanted a whole number"),
        (lambda: Adapter(placement="above"), "Adapter.placement: wanted 'series' or 'parallel', got 'above'"),
        (lambda: Adapter(activation="tanh"), "Adapter.activation: wanted one of"),
        (lambda: IA3((), (), ()), "IA3: keys, values and feed_forward are all empty"),
        (lambda: attached(IA3(keys=("head",))), "IA3.keys: pattern 'head' matches no layer"),
        (lambda: attached(Adapter(targets=("encoder",))), "Adapter.targets: pattern 'encoder' matches no layer"),
    ],
)
def test_settings_that_cannot_be_are_refused(make, message):
    with pytest.raises(UserError) as refused:
        make()
    assert message in str(refused.value)
