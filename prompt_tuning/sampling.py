"""Drawing tokens: temperature, the k likeliest, the nucleus.

Papers: top-k, Fan, Lewis & Dauphin 2018 (arXiv:1805.04833); top-p, Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration"
(arXiv:1904.09751, section 3.1). Both cut the distribution that the temperature gave, k first, as transformers does. Tokens with the logit
of the last one that is kept are kept too: a draw does not depend on how equals are sorted.

Axes: B rows, V vocabulary.
"""

import jax
import jax.numpy as jnp

Array = jax.Array


def draw(logits_BV: Array, keys_B: Array, *, temperature: float, top_k: int | None = None, top_p: float = 1.0) -> Array:
    """Tokens [B] (int32), each from softmax(logits / temperature) after `keep`, by the key of its row alone."""
    logits_BV = keep(logits_BV / temperature, top_k=top_k, top_p=top_p)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def keep(logits_BV: Array, *, top_k: int | None = None, top_p: float = 1.0) -> Array:
    """The logits with -inf for tokens that may not be drawn.

    Args:
      logits_BV: float32.
      top_k: how many of the likeliest may be drawn, 1 or more; None: all.
      top_p: then the fewest likeliest that have at least this probability together, above 0; 1: all.
    """
    if top_k is not None and top_k < logits_BV.shape[-1]:
        least_B1 = jax.lax.top_k(logits_BV, top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    if top_p < 1.0:
        falling_BV = -jnp.sort(-logits_BV, axis=-1)
        reached_BV = jnp.cumsum(jax.nn.softmax(falling_BV, axis=-1), axis=-1)
        likelier_BV = jnp.pad(reached_BV[:, :-1], ((0, 0), (1, 0)))
        least_B1 = jnp.min(jnp.where(likelier_BV < top_p, falling_BV, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    return logits_BV
