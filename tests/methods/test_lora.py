"""Low-rank changes on one linear layer: what they compute, how they fold in and out, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from prompt_tuning.errors import UserError
from prompt_tuning.methods.dora import Dora
from prompt_tuning.methods.lora import Lora, merge
from prompt_tuning.methods.pissa import Pissa
from prompt_tuning.models.layers import Linear

KEY = jax.random.key(0)
METHODS = [Lora(rank=2, alpha=3.0), Lora(rank=4, alpha=3.0, rank_stabilized=True), Dora(rank=2, alpha=3.0), Pissa(rank=2, alpha=3.0)]


class Two(nnx.Module):
    """Two linear layers, one of them stacked."""

    def __init__(self, dtype="float32"):
        rngs = nnx.Rngs(params=7)
        self.query = Linear(rngs, (6, 5), std=0.4, axes=("embed", "heads"), dtype=dtype)
        self.stack = nnx.vmap(lambda r: Linear(r, (6, 5), std=0.4, axes=("embed", "heads"), dtype=dtype), in_axes=0, out_axes=0)(
            rngs.split(3)
        )


def plugged(method, moved=True, dtype="float32"):
    model = Two(dtype)
    dataclasses.replace(method, targets=("query", "stack")).attach(model, KEY, vocabulary=None)
    rng = np.random.default_rng(3)
    if moved:
        for linear in (model.query, model.stack):
            for part in jax.tree.leaves(nnx.state(linear.delta), is_leaf=lambda x: isinstance(x, nnx.Variable)):
                part.set_value(part[...] + 0.3 * rng.normal(size=part.shape).astype(np.float32))
    return model


def inputs():
    return jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 6)).astype(np.float32))


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_product_is_that_of_the_changed_matrix(method):
    model = plugged(method)
    kernel, down, up = (np.asarray(x[...], np.float64) for x in (model.query.kernel, model.query.delta.down, model.query.delta.up))
    scale = method.alpha / (np.sqrt(method.rank) if method.rank_stabilized else method.rank)
    changed = kernel + scale * down @ up
    if isinstance(method, Dora):
        changed *= np.asarray(model.query.delta.magnitude[...]) / np.sqrt((changed**2).sum(0))
    np.testing.assert_allclose(model.query(inputs()), np.asarray(inputs()) @ changed, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_merging_keeps_the_product_and_unmerging_brings_the_kernel_back(method, dtype):
    model = plugged(method, dtype=dtype)
    before, kernels = model.query(inputs()), [np.asarray(x.kernel[...], np.float32) for x in (model.query, model.stack)]
    exact = 1e-5 if dtype == "float32" else 3e-2
    unmerge = merge(model)
    assert model.query.delta is None and model.stack.delta is None and model.query.kernel[...].dtype == dtype
    np.testing.assert_allclose(model.query(inputs()), before, atol=exact)
    assert all(np.abs(x.kernel[...] - kernel).max() > 1e-2 for x, kernel in zip((model.query, model.stack), kernels, strict=True))
    unmerge()
    for linear, kernel in zip((model.query, model.stack), kernels, strict=True):
        np.testing.assert_allclose(np.asarray(linear.kernel[...], np.float32), kernel, atol=exact)
    np.testing.assert_allclose(model.query(inputs()), before, atol=2 * exact)


def test_pissa_trains_the_largest_components_and_freezes_the_rest():
    base, model = Two(), plugged(Pissa(rank=2, alpha=3.0), moved=False)
    _, values, _ = np.linalg.svd(base.query.kernel[...])
    np.testing.assert_allclose(np.linalg.svd(model.query.delta.change())[1][:3], [*values[:2], 0.0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.svd(model.query.kernel[...])[1][:3], values[2:5], atol=1e-5)
    np.testing.assert_allclose(model.query(inputs()), base.query(inputs()), atol=1e-5)


def test_dora_takes_the_norm_as_a_constant():
    model = plugged(Dora(rank=2, alpha=3.0))
    graphdef, state = nnx.split(model.query)
    state = nnx.to_pure_dict(state)
    kernel = state["kernel"]

    def total(up, norms_of):
        delta = nnx.merge(graphdef, state).delta
        delta.up.set_value(norms_of)
        gain = delta.magnitude[...] / delta.norms(kernel)
        delta.up.set_value(up)
        y = inputs() @ kernel + delta.added(inputs(), None)
        return (jnp.broadcast_to(gain, y.shape) * y).sum()

    def ours(up):
        linear = nnx.merge(graphdef, state)
        linear.delta.up.set_value(up)
        return linear(inputs()).sum()

    up = state["delta"]["up"]
    np.testing.assert_allclose(jax.grad(ours)(up), jax.grad(total)(up, up), rtol=1e-4)


def test_dropout_acts_on_the_change_alone_and_only_with_a_key():
    model = plugged(Lora(rank=2, dropout_rate=0.5))
    still = model.query(inputs())
    np.testing.assert_array_equal(still, model.query(inputs()))
    some = [model.query(inputs(), key=jax.random.key(i)) for i in range(2)]
    assert np.abs(some[0] - some[1]).max() > 1e-2
    model.query.delta = None
    np.testing.assert_array_equal(model.query(inputs(), key=KEY), model.query(inputs()))


def test_first_values_have_their_distribution_and_do_not_depend_on_other_targets():
    model = Two()
    Lora(rank=4, targets=("query",)).attach(model, KEY, vocabulary=None)
    alone = np.asarray(model.query.delta.down[...])
    np.testing.assert_array_equal(alone, plugged(Lora(rank=4), moved=False).query.delta.down[...])
    assert np.abs(alone).max() <= 6**-0.5 and not np.any(model.query.delta.up[...])
    normal = plugged(Lora(rank=4, initializer="normal"), moved=False).stack.delta.down[...]
    assert 0.18 < normal.std() < 0.32 and np.abs(normal).max() > 6**-0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "Lora.rank: wanted a whole number of 1 or more, got 0"),
        ({"rank": 6, "targets": ["query"]}, "Lora.rank: wanted at most 5, the smaller width of query, got 6"),
        ({"dropout_rate": 1.0}, "Lora.dropout_rate: wanted 0 or more and less than 1"),
        ({"initializer": "best"}, "Lora.initializer: wanted 'kaiming_uniform' or 'normal', got 'best'"),
        (
            {"targets": ("key",)},
            "Lora.targets: pattern 'key' matches no layer with a place for it; wanted one for whole names such as query",
        ),
        ({"targets": ()}, "Lora.targets is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError) as refused:
        Lora(**settings).attach(Two(), KEY, vocabulary=None)
    assert message in str(refused.value)


def test_what_cannot_be_done_twice_or_undone_is_refused():
    model = plugged(METHODS[0])
    with pytest.raises(UserError, match="query already has a LowRank"):
        Lora(rank=1, targets=("query",)).attach(model, KEY, vocabulary=None)
    with pytest.raises(UserError, match="no low-rank change"):
        merge(Two())
    with pytest.raises(UserError, match="Pissa.alpha: wanted more than 0"):
        Pissa(alpha=0.0)
