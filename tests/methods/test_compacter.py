"""Compacter's matrices against NumPy's Kronecker products, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.methods.compacter import Compacter, kronecker_sum
from prompt_tuning.models.t5 import T5
from tests.interop import tiny

KEY = jax.random.key(1)


def attached(*methods):
    def build():
        model = T5(tiny.V1_1, nnx.Rngs(params=0))
        for method in methods:
            method.attach(model, KEY, vocabulary=None)
        return model

    return nnx.eval_shape(build)


def test_a_matrix_is_the_sum_of_kronecker_products():
    rng = np.random.default_rng(0)
    rule, left, right = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 2, 2), (3, 2, 4, 1), (3, 2, 1, 5)))
    found = kronecker_sum(*map(jnp.asarray, (rule, left, right)))
    for layer in range(3):
        wanted = sum(np.kron(rule[i], left[layer, i] @ right[layer, i]) for i in range(2))
        np.testing.assert_allclose(found[layer], wanted, rtol=1e-5, atol=1e-6)


def test_a_stack_shares_one_factor_and_its_layers_get_adapters():
    model = tiny.model_with(tiny.V1_1, tiny.random_values(tiny.V1_1))
    Compacter(width=4, n=2, targets=(".*/feed_forward",)).attach(model, KEY, vocabulary=None)
    layers = model.decoder.filled()
    rule, own = model.decoder.generator.rule[...], model.decoder.generator.factors["feed_forward"]
    np.testing.assert_array_equal(layers.feed_forward.adapter.down[...], kronecker_sum(rule, own.down_left[...], own.down_right[...]))
    assert layers.feed_forward.adapter.up.shape == (2, 4, 16)
    assert layers.self_attention.adapter is None
    assert model.decoder.layers.feed_forward.adapter is None, "the model's own layers stay as they were"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 3}, "Compacter.n: wanted a divisor of the widths 16 and 24, got 3"),
        ({"rank": 0}, "Compacter.rank: wanted a whole number"),
        ({"targets": ("head",)}, "Compacter.targets: pattern 'head' matches no layer"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError) as refused:
        attached(Compacter(**settings))
    assert message in str(refused.value)


def test_a_stack_that_has_one_is_refused():
    with pytest.raises(UserError, match="no free place"):
        attached(Compacter(), Compacter())
