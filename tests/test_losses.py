import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_tuning import losses


def _batch(seed=0, shape=(3, 5), vocabulary=11):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(*shape, vocabulary)).astype(np.float32) * 3
    targets = rng.integers(0, vocabulary, size=shape)
    weights = (rng.random(shape) > 0.3).astype(np.float32)
    return jnp.asarray(logits), jnp.asarray(targets), jnp.asarray(weights)


def test_plain_loss_is_optax_cross_entropy():
    logits, targets, weights = _batch()
    loss, weight, sums = losses.cross_entropy(logits, targets, weights_BT=weights)
    expected = jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(logits, targets))
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(sums["cross_entropy"], expected, rtol=1e-6)
    assert weight == np.sum(np.asarray(weights))
    assert sums["z_loss"] == 0


def test_smoothing_and_z_loss_are_those_of_torch_and_the_closed_form():
    torch = pytest.importorskip("torch")
    logits, targets, weights = _batch(1)
    smoothing, z_loss, vocabulary = 0.1, 1e-2, logits.shape[-1]
    loss, weight, sums = losses.cross_entropy(logits, targets, weights_BT=weights, label_smoothing=smoothing, z_loss=z_loss)
    # torch's smoothing gives s / V to every entry, the target too: s' = s V / (V - 1) makes it T5X's; T5X then takes the entropy away.
    torch_logits = torch.tensor(np.asarray(logits)).reshape(-1, vocabulary)
    per_token = torch.nn.functional.cross_entropy(
        torch_logits,
        torch.tensor(np.array(targets, np.int64)).reshape(-1),
        label_smoothing=smoothing * vocabulary / (vocabulary - 1),
        reduction="none",
    )
    soft = np.full(vocabulary, smoothing / (vocabulary - 1))
    soft[0] = 1 - smoothing
    entropy = -np.sum(soft * np.log(soft))
    z_terms = z_loss * torch.logsumexp(torch_logits, -1) ** 2
    flat = np.asarray(weights).reshape(-1)
    np.testing.assert_allclose(loss, np.sum(flat * (per_token + z_terms).numpy() - flat * entropy), rtol=1e-5)
    np.testing.assert_allclose(sums["z_loss"], np.sum(flat * z_terms.numpy()), rtol=1e-5)
    assert weight == flat.sum()


def test_gradient_of_the_loss_is_torchs():
    torch = pytest.importorskip("torch")
    logits, targets, weights = _batch(2)
    ours = jax.grad(lambda x: losses.cross_entropy(x, targets, weights_BT=weights, z_loss=1e-3)[0])(logits)
    theirs = torch.tensor(np.asarray(logits), requires_grad=True)
    per_token = torch.nn.functional.cross_entropy(theirs.transpose(1, 2), torch.tensor(np.array(targets, np.int64)), reduction="none")
    total = (torch.tensor(np.asarray(weights)) * (per_token + 1e-3 * torch.logsumexp(theirs, -1) ** 2)).sum()
    total.backward()
    np.testing.assert_allclose(ours, theirs.grad.numpy(), atol=1e-6)


def test_a_perfect_prediction_costs_nothing_under_smoothing():
    soft = np.full((1, 1, 7), 0.2 / 6, np.float32)
    soft[..., 3] = 0.8
    loss, _, _ = losses.cross_entropy(jnp.log(soft), jnp.array([[3]]), weights_BT=jnp.ones((1, 1)), label_smoothing=0.2)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)


def test_padding_has_no_effect_even_where_the_scores_are_infinite():
    logits, targets, _ = _batch(3)
    weights = jnp.ones(targets.shape).at[:, 3:].set(0)

    def total(x):
        return losses.cross_entropy(x, targets, weights_BT=weights, label_smoothing=0.1, z_loss=1e-4)[0]

    broken = logits.at[:, 3:].set(jnp.inf)
    assert total(broken) == total(logits)
    short, _, _ = losses.cross_entropy(logits[:, :3], targets[:, :3], weights_BT=weights[:, :3], label_smoothing=0.1, z_loss=1e-4)
    np.testing.assert_allclose(total(logits), short, rtol=1e-6)
    assert jnp.all(jax.grad(total)(logits)[:, 3:] == 0)


def test_correct_counts_the_weighted_hits():
    logits = jnp.eye(4)[None]
    _, weight, sums = losses.cross_entropy(logits, jnp.array([[0, 1, 3, 3]]), weights_BT=jnp.array([[1.0, 1.0, 1.0, 0.0]]))
    assert (sums["correct"], weight) == (2, 3)


def test_bf16_scores_are_reduced_in_float32():
    logits, targets, weights = _batch(4, vocabulary=100)
    loss, _, _ = losses.cross_entropy(logits.astype(jnp.bfloat16), targets, weights_BT=weights)
    exact, _, _ = losses.cross_entropy(logits.astype(jnp.bfloat16).astype(jnp.float32), targets, weights_BT=weights)
    assert loss.dtype == jnp.float32
    assert loss == exact


def test_token_log_probs_sum_to_the_loss():
    logits, targets, weights = _batch(5)
    loss, _, _ = losses.cross_entropy(logits, targets, weights_BT=weights)
    np.testing.assert_allclose(-jnp.sum(weights * losses.token_log_probs(logits, targets)), loss, rtol=1e-6)
