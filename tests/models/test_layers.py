"""The layers' own gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.models import layers


def plain(x, kernel):
    return jnp.einsum("...i,io->...o", x, kernel, preferred_element_type=jnp.float32).astype(x.dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lead", [(3,), (2, 5)])
def test_the_product_has_the_gradients_that_jax_derives(dtype, lead):
    rng = np.random.default_rng(0)
    x, kernel, weights = (jnp.asarray(rng.standard_normal(shape), dtype) for shape in ((*lead, 4), (4, 6), (*lead, 6)))

    def sum_and_gradients(f):
        return jax.tree.leaves(jax.value_and_grad(lambda x, kernel: jnp.sum(f(x, kernel) * weights), (0, 1))(x, kernel))

    for ours, theirs in zip(sum_and_gradients(layers.product), sum_and_gradients(plain), strict=True):
        assert ours.dtype == theirs.dtype == dtype
        # Both sum in float32; the order of a sum of ten may differ, which bfloat16 may round to the next of its 256 steps.
        np.testing.assert_allclose(ours.astype("float32"), theirs.astype("float32"), rtol=1e-6 if dtype == "float32" else 8e-3, atol=1e-6)


def kept_of(function, *arguments):
    """Shapes of what the backward pass of a function keeps of its forward pass."""
    _, backward = jax.vjp(function, *arguments)
    return sorted(leaf.shape for leaf in jax.tree.leaves(backward))


def test_a_frozen_kernel_does_not_keep_the_input_and_a_constant_input_does_not_keep_the_kernel():
    x, kernel = jnp.ones((5, 4)), jnp.ones((4, 6))
    assert kept_of(lambda x: layers.product(x, kernel), x) == [(4, 6)]
    assert kept_of(lambda kernel: layers.product(x, kernel), kernel) == [(5, 4)]
    assert kept_of(layers.product, x, kernel) == [(4, 6), (5, 4)]
