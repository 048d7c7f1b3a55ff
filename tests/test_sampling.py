"""What may be drawn is what transformers leaves, and what is drawn is distributed as it should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_tuning import sampling

CHOICES = [{"top_k": 1}, {"top_k": 7}, {"top_k": 100}, {"top_p": 0.1}, {"top_p": 0.9}, {"top_k": 9, "top_p": 0.6}, {}]


def logits(rows=64, vocab=50, seed=0):
    return 2.0 * np.random.default_rng(seed).normal(size=(rows, vocab)).astype(np.float32)


@pytest.mark.parametrize("chosen", CHOICES)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_what_is_kept_is_what_the_warpers_of_transformers_keep(chosen, temperature):
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    wanted = torch.from_numpy(logits())
    warpers = [process.TemperatureLogitsWarper(temperature)]
    warpers += [process.TopKLogitsWarper(chosen["top_k"])] if "top_k" in chosen else []
    warpers += [process.TopPLogitsWarper(chosen["top_p"])] if "top_p" in chosen else []
    for warper in warpers:
        wanted = warper(None, wanted)
    found = np.asarray(sampling.keep(jnp.asarray(logits()) / temperature, **chosen))
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted.numpy()))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)


# A handful of different values, so that equals are common.
values = st.lists(st.integers(-4, 4).map(float), min_size=6, max_size=6)


@settings(deadline=None, max_examples=60)
@given(values, st.integers(1, 6), st.floats(0.01, 0.99))
def test_the_fewest_likeliest_are_kept_with_their_equals(row, top_k, top_p):
    falling = np.sort(row)[::-1]
    by_k = np.asarray(sampling.keep(jnp.asarray([row]), top_k=top_k))[0]
    np.testing.assert_array_equal(np.isfinite(by_k), np.array(row) >= falling[top_k - 1])

    by_p = np.isfinite(np.asarray(sampling.keep(jnp.asarray([row]), top_p=top_p))[0])
    probabilities = np.exp(np.array(row)) / np.exp(np.array(row)).sum()
    least = min(probabilities[by_p])
    np.testing.assert_array_equal(by_p, probabilities >= least)
    # Float32 sums: at a boundary either side is right.
    assert probabilities[by_p].sum() >= top_p - 1e-6
    assert probabilities[probabilities > least].sum() < top_p + 1e-6


@pytest.mark.parametrize("chosen", CHOICES)
def test_draws_follow_the_distribution_that_is_kept(chosen):
    from scipy import stats

    draws, temperature = 20_000, 1.5
    row = logits(rows=1, vocab=12, seed=3)
    keys = jax.random.split(jax.random.key(1), draws)
    tokens = sampling.draw(jnp.tile(row, (draws, 1)), keys, temperature=temperature, **chosen)
    kept = np.asarray(sampling.keep(jnp.asarray(row) / temperature, **chosen), np.float64)[0]
    expected = draws * np.exp(kept) / np.exp(kept).sum()
    found = np.bincount(np.asarray(tokens), minlength=12)
    assert found[expected == 0].sum() == 0
    if (expected > 0).sum() > 1:
        # One fixed draw: a right distribution passes for all but one seed in ten thousand.
        assert stats.chisquare(found[expected > 0], expected[expected > 0]).pvalue > 1e-4


def test_a_draw_depends_on_its_own_row_and_key():
    rows, keys = jnp.asarray(logits(rows=5)), jax.random.split(jax.random.key(0), 5)
    whole = np.asarray(sampling.draw(rows, keys, temperature=1.0, top_k=30, top_p=0.95))
    order = np.array([3, 1, 1, 4])
    np.testing.assert_array_equal(sampling.draw(rows[order], keys[order], temperature=1.0, top_k=30, top_p=0.95), whole[order])
    assert len(set(whole.tolist())) > 1
