"""Cross-entropy over target tokens, with label smoothing and z-loss as T5X defines them.

The functions return sums, not means, so that batches cut over devices or micro-batches add up: the loss of a step is
`loss_sum / weight_sum`, the mean over target tokens.

Axes: B batch, T target length, V vocabulary.
"""

import math

import jax
import jax.numpy as jnp


def cross_entropy(
    logits_BTV: jax.Array, targets_BT: jax.Array, *, weights_BT: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Summed cross-entropy of the targets, the sum of the weights, and further sums.

    Computed in float32 whatever the logits' dtype. Label smoothing follows T5X (`compute_weighted_cross_entropy`): the target gets
    1 - label_smoothing, every other entry label_smoothing / (V - 1), and the entropy of that distribution is subtracted, so that a perfect
    prediction costs nothing. z-loss (Mesh TensorFlow, T5X) adds `z_loss * logsumexp(logits)^2` to every token, which keeps the logits'
    normaliser near 1; Lester et al. use 1e-4.

    Args:
      logits_BTV: scores, any floating dtype.
      targets_BT: int, the index of the right entry; where the weight is 0 any valid index will do.
      weights_BT: the weight of each token: 1 on targets, 0 on padding.
      label_smoothing: probability mass taken from the target, in [0, 1).
      z_loss: the coefficient of z-loss, 0 for none.

    Returns:
      loss_sum: [] float32, z-loss included.
      weight_sum: [] float32.
      sums: further weighted [] float32 sums: `cross_entropy` (what the targets cost: no smoothing, no z-loss), `z_loss`, `correct`
        (tokens whose target has the highest score; a tie counts as correct).
    """
    logits_BTV = logits_BTV.astype(jnp.float32)
    weights_BT = weights_BT.astype(jnp.float32)
    log_normaliser_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
    target_logits_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    cross_entropy_BT = log_normaliser_BT - target_logits_BT
    loss_BT = cross_entropy_BT
    if label_smoothing:
        vocabulary = logits_BTV.shape[-1]
        on_target = 1.0 - label_smoothing
        elsewhere = label_smoothing / (vocabulary - 1)
        entropy = -(on_target * math.log(on_target) + label_smoothing * math.log(elsewhere))
        # Sum over the vocabulary of -log p, from the logits' sum: no one-hot array is made.
        all_entries_BT = vocabulary * log_normaliser_BT - jnp.sum(logits_BTV, axis=-1)
        loss_BT = on_target * cross_entropy_BT + elsewhere * (all_entries_BT - cross_entropy_BT) - entropy
    z_loss_BT = z_loss * jnp.square(log_normaliser_BT)
    # A weight of 0 must silence its token even where the model gives infinities there.
    counted_BT = weights_BT > 0
    loss_BT = jnp.where(counted_BT, loss_BT + z_loss_BT, 0.0)
    correct_BT = target_logits_BT >= jnp.max(logits_BTV, axis=-1)
    sums = {
        "cross_entropy": jnp.sum(weights_BT * jnp.where(counted_BT, cross_entropy_BT, 0.0)),
        "z_loss": jnp.sum(weights_BT * jnp.where(counted_BT, z_loss_BT, 0.0)),
        "correct": jnp.sum(weights_BT * correct_BT),
    }
    return jnp.sum(weights_BT * loss_BT), jnp.sum(weights_BT), sums


def per_token(
    logits_BTV: jax.Array, targets_BT: jax.Array, *, weights_BT: jax.Array, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of `cross_entropy` as the mean over target tokens, with `cross_entropy` and `token_accuracy`; 0 for no token."""
    loss_sum, weight_sum, sums = cross_entropy(
        logits_BTV, targets_BT, weights_BT=weights_BT, label_smoothing=label_smoothing, z_loss=z_loss
    )
    tokens = jnp.maximum(weight_sum, 1.0)
    return loss_sum / tokens, {"cross_entropy": sums["cross_entropy"] / tokens, "token_accuracy": sums["correct"] / tokens}


def token_log_probs(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """The natural-log probability [B, T] float32 that the scores give to each target."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    target_logits_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return target_logits_BT - jax.nn.logsumexp(logits_BTV, axis=-1)
