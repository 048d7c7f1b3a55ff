"""Cross-entropy over target tokens, with label smoothing and z-loss as T5X defines them, whole or a few tokens at a time; the losses of
answer choices; penalties.

`cross_entropy` returns sums, not means, so that batches cut over devices or micro-batches add up: the loss of a step is
`loss_sum / weight_sum`, the mean over target tokens.

Axes: B batch, C answer choices, T target length, D model width, V vocabulary.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from prompt_tuning.errors import UserError

# Logits of fewer bytes on a device are computed at once: chunks save twice the bytes of all, and cost the head's product once more, a
# quarter of the processor time of head and loss (T5 v1.1 small's head). Each chunk goes through the whole head, which costs as much as some
# 80 tokens: chunks of 32 tokens of a vocabulary of 262,144 took 3.6 times as long as all at once.
_LEAST_BYTES = 512 * 2**20
_CHUNK_BYTES, _CHUNK_TOKENS = 64 * 2**20, 512


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
    return _mean(loss_sum, weight_sum, sums)


def _mean(loss_sum: jax.Array, weight_sum: jax.Array, sums: Mapping[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
    tokens = jnp.maximum(weight_sum, 1.0)
    return loss_sum / tokens, {"cross_entropy": sums["cross_entropy"] / tokens, "token_accuracy": sums["correct"] / tokens}


def chunks(rows: int, length: int, vocabulary: int, *, share: float = 1.0) -> int:
    """In how many chunks of the T target positions logits [B, T, V] are best computed: 1 where they are small.

    Args:
      rows, length, vocabulary: B, T, V.
      share: how much of the logits lies on one device.
    """
    tokens = rows * length * share
    size = 4 * tokens * vocabulary
    return 1 if size < _LEAST_BYTES else max(1, min(length, math.ceil(size / _CHUNK_BYTES), int(tokens / _CHUNK_TOKENS)))


def per_token_in_chunks(
    head: Callable[[jax.Array], jax.Array],
    x_BTD: jax.Array,
    targets_BT: jax.Array,
    *,
    weights_BT: jax.Array,
    chunks: int,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`per_token(head(x_BTD), ...)` without the logits of all tokens at once, forward or backward.

    They are computed for T / chunks positions of every row at a time, and again in the backward pass, which adds up the gradient of a head
    that is trained chunk by chunk. Cut along T, each device keeps its rows and its part of the vocabulary.

    Args:
      head: logits [B, t, V] of any number of positions.
      x_BTD: what the head reads.
      targets_BT, weights_BT, label_smoothing, z_loss: see `cross_entropy`.
      chunks: 1 to T.
    """
    length = x_BTD.shape[1]
    size = -(-length // chunks)

    def cut(value: jax.Array) -> jax.Array:
        """[chunks, B, t, ...], with padding at the end."""
        rest = value.shape[2:]
        padded = jnp.pad(value, [(0, 0), (0, chunks * size - length), *[(0, 0)] * len(rest)])
        return jnp.swapaxes(padded.reshape(value.shape[0], chunks, size, *rest), 0, 1)

    def of_chunk(total: Any, chunk: tuple[jax.Array, ...]) -> tuple[Any, None]:
        x, targets, weights = chunk
        found = cross_entropy(head(x), targets, weights_BT=weights, label_smoothing=label_smoothing, z_loss=z_loss)
        return jax.tree.map(jnp.add, total, found), None

    zero = jnp.zeros((), jnp.float32)
    nothing = (zero, zero, {"cross_entropy": zero, "z_loss": zero, "correct": zero})
    parts = (cut(x_BTD), cut(targets_BT), cut(weights_BT))
    total, _ = jax.lax.scan(jax.checkpoint(of_chunk, prevent_cse=False), nothing, parts)
    return _mean(*total)


def penalty(model: nnx.Module, batch: Mapping[str, Any], logits_BTV: jax.Array) -> jax.Array | None:
    """The sum of what modules add to the loss: the scalar `penalty(model, batch, logits_BTV)` of each that has one; None where none has.

    Logits are [B, C, T, V] where the batch has answer choices.
    """
    asked = [module.penalty(model, batch, logits_BTV) for module in penalising(model)]
    return functools.reduce(jnp.add, asked) if asked else None


def penalising(model: nnx.Module) -> list[Any]:
    """The modules that add to the loss."""
    return [module for _, module in nnx.iter_modules(model) if hasattr(module, "penalty")]


def token_log_probs(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """The natural-log probability [B, T] float32 that the scores give to each target."""
    logits_BTV = logits_BTV.astype(jnp.float32)
    target_logits_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
    return target_logits_BT - jax.nn.logsumexp(logits_BTV, axis=-1)


@dataclasses.dataclass(frozen=True)
class ChoiceLosses:
    """What the answer choices of an example add to the loss of the right one (Liu et al. 2022, arXiv:2205.05638, section 3.2).

    Attributes:
      num_choices: C, most answer choices of an example.
      unlikelihood: the weight of -log(1 - p + epsilon), the mean over tokens of wrong choices; -log(1 + epsilon) at its least.
      multiple_choice: the weight of the cross-entropy of the right choice among the choices' scores, the mean over examples with choices.
      length_normalisation: a choice's score is its log-probability divided by its number of tokens to this power.
      epsilon: of the unlikelihood; 1e-2 in the released code, which the paper leaves out.
    """

    num_choices: int = 4
    unlikelihood: float = 1.0
    multiple_choice: float = 1.0
    length_normalisation: float = 1.0
    epsilon: float = 1e-2

    def __post_init__(self) -> None:
        if isinstance(self.num_choices, bool) or not isinstance(self.num_choices, int) or self.num_choices < 2:
            raise UserError(f"ChoiceLosses.num_choices: wanted a whole number of 2 or more, got {self.num_choices!r}")
        for name in ("unlikelihood", "multiple_choice", "length_normalisation"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"ChoiceLosses.{name}: wanted 0 or more, got {getattr(self, name)!r}")
        if not 0 < self.epsilon < 1:
            raise UserError(f"ChoiceLosses.epsilon: wanted more than 0 and less than 1, got {self.epsilon!r}")


def of_choices(
    logits_BCTV: jax.Array,
    targets_BCT: jax.Array,
    *,
    weights_BCT: jax.Array,
    settings: ChoiceLosses,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of `per_token` of the right choice, which stands first, and `ChoiceLosses` of all.

    A place without a choice weighs 0 at every token. An example with one choice has the loss of its tokens alone.

    Returns:
      The loss [] float32 and, besides the metrics of `per_token`, `unlikelihood` and `multiple_choice`, both without their weights, and
      `choice_accuracy`: the share of examples with choices whose right one has the highest score.
    """
    weights_BCT = jnp.asarray(weights_BCT, jnp.float32)
    loss, metrics = per_token(
        logits_BCTV[:, 0], targets_BCT[:, 0], weights_BT=weights_BCT[:, 0], label_smoothing=label_smoothing, z_loss=z_loss
    )
    # Any finite number silences a token that does not count; at 0 the gradient of its unlikelihood would be the steepest.
    log_probs_BCT = jnp.where(weights_BCT > 0, token_log_probs(logits_BCTV, targets_BCT), -1.0)
    wrong_BCT = weights_BCT.at[:, 0].set(0.0)
    unlikelihood_BCT = -jnp.log1p(settings.epsilon - jnp.exp(log_probs_BCT))
    tokens_BC = jnp.sum(weights_BCT, axis=-1)
    scores_BC = jnp.sum(weights_BCT * log_probs_BCT, axis=-1) / jnp.maximum(tokens_BC, 1.0) ** settings.length_normalisation
    scores_BC = jnp.where(tokens_BC > 0, scores_BC, -jnp.inf)
    several_B = (jnp.sum(tokens_BC > 0, axis=-1) > 1).astype(jnp.float32)

    def mean(value: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(value * weight) / jnp.maximum(jnp.sum(weight), 1.0)

    metrics |= {
        "unlikelihood": mean(unlikelihood_BCT, wrong_BCT),
        "multiple_choice": mean(jax.nn.logsumexp(scores_BC, axis=-1) - scores_BC[:, 0], several_B),
        "choice_accuracy": mean(scores_BC[:, 0] >= jnp.max(scores_BC, axis=-1), several_B),
    }
    added = settings.unlikelihood * metrics["unlikelihood"] + settings.multiple_choice * metrics["multiple_choice"]
    return loss + added, metrics
