"""Operations are counted as one does by hand: 2 M K N a product."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from prompt_tuning.methods.full import Full
from prompt_tuning.models.t5 import T5
from prompt_tuning.planning.counting import operations
from tests.test_training_step import ROWS, SOURCE, TARGET, abstract_step
from tests.tiny_experiment import CONFIG


def counted(function, *arguments):
    return operations(jax.make_jaxpr(function)(*arguments).jaxpr)


def test_products_are_counted_with_every_run_of_a_scan():
    x, weights = jnp.ones((5, 4)), jnp.ones((3, 4, 4))
    once = 2 * 5 * 4 * 4
    assert counted(lambda x: x @ weights[0], x) == once

    def layers(x):
        return jax.lax.scan(jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None)), x, weights)[0].sum()

    assert counted(jax.jit(layers), x) == 3 * once
    # Backward, the forward pass is run again, and each layer gives a gradient for its input.
    assert counted(jax.grad(layers), x) == 9 * once


def test_of_branches_the_largest_counts_and_a_loop_of_unknown_length_once():
    x = jnp.ones((4, 4))
    assert counted(lambda x: jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x), x) == 2 * 2 * 4**3
    assert counted(lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x), x) == 2 * 4**3


def by_hand(rows, source, target, layers):
    """The products of a forward pass of a gated T5 with an untied head."""
    width, inner, attended = CONFIG.d_model, CONFIG.d_ff, CONFIG.num_heads * CONFIG.d_kv

    def linear(length, width_in, width_out):
        return 2 * rows * length * width_in * width_out

    def attention(queries, keys):
        scores_and_values = 2 * 2 * rows * queries * keys * attended
        return 2 * linear(queries, width, attended) + 2 * linear(keys, width, attended) + scores_and_values

    encoder = attention(source, source) + 3 * linear(source, width, inner)
    decoder = attention(target, target) + attention(target, source) + 3 * linear(target, width, inner)
    return layers * (encoder + decoder) + linear(target, width, CONFIG.vocab_size)


@pytest.mark.parametrize("unroll", [True, False])
def test_a_t5_is_counted_as_by_hand(unroll):
    step, (state, frozen, batch) = abstract_step(Full(), layers=3, remat="none", unroll_layers=unroll)
    graphdef = step.keywords["graphdef"]
    forward = by_hand(ROWS, SOURCE, TARGET, 3)
    assert counted(lambda tuned, batch: nnx.merge(graphdef, tuned, frozen)(batch), state.tuned, batch) == forward
    # Each product is run once, and each of its two sides gets a gradient, by a product of the same size.
    assert counted(step, state, frozen, batch) == 3 * forward


def test_the_model_that_is_counted_is_the_one_that_was_meant():
    assert T5(CONFIG, nnx.Rngs(0)).head is not None
