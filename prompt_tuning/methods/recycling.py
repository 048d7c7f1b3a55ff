"""A prompt of one model made into one of another, by a map between their embeddings; no further training.

Paper: Lester et al. 2022, "Reducing Retraining by Recycling Parameter-Efficient Prompts" (arXiv:2208.05577).

What this file follows: the models share a vocabulary; a map is fitted on the embeddings of 4,000 of its tokens and applied to each row of
the prompt (section 3). `linear` fits the matrix of least squares from one embedding to the other (`v2v-lin`); `combination` writes the row
as a combination of the source's token embeddings and takes the same combination of the target's (`lin-comb`). `network` fits a ReLU layer
four times as wide as the target and a linear one, with Adam at 3e-4, 25 epochs of batches of 50, as the released code does (`v2v-nn`).

Where tokens are fewer than the source's width, the matrix is the one of least norm, as is the combination always.

Axes: P prompt length, V vocabulary, B batch, S and T model width of source and target.
"""

import itertools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from prompt_tuning.errors import UserError

_WIDER, _RATE, _EPOCHS, _BATCH = 4, 3e-4, 25, 50


def recycled(
    prompt_PS: np.ndarray,
    source_VS: np.ndarray,
    target_VT: np.ndarray,
    *,
    by: Literal["linear", "combination", "network"] = "linear",
    first_token: int = 0,
    num_tokens: int = 4000,
    seed: int = 0,
) -> np.ndarray:
    """The prompt for the target model, [P, T] in float32.

    Args:
      prompt_PS: the prompt of the source model.
      source_VS, target_VT: the models' token embeddings; row v is the same token in both.
      by: the map, see above.
      first_token, num_tokens: which rows the map is fitted on; fewer where the smaller vocabulary ends.
      seed: of a network's first values and of the order it sees tokens in.

    Raises:
      UserError: where widths do not fit, there is no token to fit on, or the map is unknown.
    """
    if prompt_PS.ndim != 2 or prompt_PS.shape[1] != source_VS.shape[1]:
        raise UserError(f"recycled: wanted a prompt [P, {source_VS.shape[1]}], the source's width, got {list(prompt_PS.shape)}")
    last = min(first_token + num_tokens, len(source_VS), len(target_VT))
    if first_token < 0 or last <= first_token:
        raise UserError(f"recycled: wanted tokens that both models have, got {num_tokens} from {first_token}")
    prompt, source, target = (np.asarray(x, np.float64) for x in (prompt_PS, source_VS[first_token:last], target_VT[first_token:last]))
    if by == "linear":
        matrix_ST = np.linalg.lstsq(source, target, rcond=None)[0]
        return (prompt @ matrix_ST).astype(np.float32)
    if by == "combination":
        weights_VP = np.linalg.lstsq(source.T, prompt.T, rcond=None)[0]
        return (weights_VP.T @ target).astype(np.float32)
    if by == "network":
        return _network(source, target, seed)(prompt)
    raise UserError(f"recycled: wanted 'linear', 'combination' or 'network', got {by!r}")


def _network(source_VS: np.ndarray, target_VT: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A network fitted to take each row of the source to the target's."""
    transform = optax.adam(_RATE)
    widths = (source_VS.shape[1], _WIDER * target_VT.shape[1], target_VT.shape[1])
    draw, order = jax.nn.initializers.lecun_normal(), np.random.default_rng(seed)
    keys = jax.random.split(jax.random.key(seed))
    kernels = [draw(key, shape, jnp.float32) for key, shape in zip(keys, itertools.pairwise(widths), strict=True)]
    weights = {"kernels": kernels, "biases": [jnp.zeros(width) for width in widths[1:]]}

    def mapped(weights: Any, x_BS: jax.Array) -> jax.Array:
        h_BM = x_BS @ weights["kernels"][0]
        h_BM = jax.nn.relu(h_BM + jnp.broadcast_to(weights["biases"][0], h_BM.shape))
        y_BT = h_BM @ weights["kernels"][1]
        return y_BT + jnp.broadcast_to(weights["biases"][1], y_BT.shape)

    def step(carried: Any, rows_B: jax.Array) -> tuple[Any, None]:
        weights, state = carried
        gradient = jax.grad(lambda weights: jnp.mean(optax.l2_loss(mapped(weights, source[rows_B]), target[rows_B])))(weights)
        updates, state = transform.update(gradient, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    source, target = jnp.asarray(source_VS, jnp.float32), jnp.asarray(target_VT, jnp.float32)
    size = min(_BATCH, len(source))
    batches = len(source) // size  # The tokens left over in an epoch come in another.
    orders = np.stack([order.permutation(len(source))[: batches * size].reshape(batches, size) for _ in range(_EPOCHS)])
    fit = jax.jit(lambda carried: jax.lax.scan(step, carried, jnp.asarray(orders.reshape(-1, size)))[0])
    fitted, _ = fit((weights, transform.init(weights)))
    return lambda rows: np.asarray(mapped(fitted, jnp.asarray(rows, jnp.float32)))
