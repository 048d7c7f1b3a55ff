"""Attention in pieces, whose scores stay small: a few rows and a block of queries at a time, made again in the backward pass.

Dao et al. 2022 (arXiv:2205.14135), algorithms 1 and 2 without their blocks of keys: a query's scores are there all at once, so that its
softmax is the plain one. Kept for the backward pass are the output and the logarithm of each query's sum. Where no query sees what stands
behind it, a block of queries reads only the keys up to its end.

On a CPU. XLA multiplies a batch of small matrices there on one thread at a time, so that the pieces, which wait for nothing of each other,
also keep the other threads busy. On NVIDIA GPUs see `fused.py`.

Axes: B batch, H heads, J key heads (a divisor of H), G query heads a key head, T queries, S keys, K head width, W width of values.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_tuning.models import backends

Array = jax.Array

# Scores of fewer bytes than this are written out by the caller. Causal ones gain time by pieces (2 cores: a fifth of attention at 40 MB).
# Others gain memory alone and take longer to compile: T5 v1.1 small, 16 x 512/32, 144 MB a layer, took no less time and 6.1 GB for 7.1.
_LEAST_BYTES, _LEAST_CAUSAL_BYTES = 256 * 2**20, 16 * 2**20
# Groups of rows, and the most bytes of scores in a piece. More and smaller pieces were no faster (6 and 12 heads, 228 to 612 positions).
_ROW_GROUPS = 4
_PIECE_BYTES = 128 * 2**20
# Queries in a block that need not read later keys; at most so many blocks.
_CAUSAL_QUERIES, _CAUSAL_BLOCKS = 128, 4


class Bias(NamedTuple):
    """What is added to scores, in two parts of which neither is as large as all scores.

    Attributes:
      relative: [1, H, T, S] float32, the same for all rows, or None.
      mask: float32, broadcastable to [B, H, T, S]: 0, or `layers.MASKED` where attention is forbidden. A constant: it gets no gradient.
      distances: [H, T + L - 1] float32, `relative` of the last L keys by their distance from a query, from 1 - T to L - 1; keys before
        these have no relative bias. It is all that attention in pieces reads of it: what makes `relative` then falls away unused.
    """

    relative: Array | None
    mask: Array
    distances: Array | None = None

    def whole(self) -> Array:
        """The sum, broadcastable to [B, H, T, S]."""
        return self.mask if self.relative is None else self.relative + self.mask

    def behind(self, count: int) -> "Bias":
        """With zeros for as many keys before the others."""
        room = [(0, 0), (0, 0), (0, 0), (count, 0)]
        return self._replace(relative=None if self.relative is None else jnp.pad(self.relative, room), mask=jnp.pad(self.mask, room))


class _Settings(NamedTuple):
    scale: float
    cap: float | None
    causal: bool


def serves(q_BHTK: Array, k_BJSK: Array, *, dropout: bool, causal: bool) -> bool:
    """Whether attention in pieces is the better form: on a CPU, for many scores, without dropout on weights."""
    batch, heads, length, _ = q_BHTK.shape
    least = _LEAST_CAUSAL_BYTES if causal else _LEAST_BYTES
    return not dropout and backends.backend() == "cpu" and 4 * batch * heads * length * k_BJSK.shape[2] >= least


def attend(
    q_BHTK: Array, k_BJSK: Array, v_BJSW: Array, bias: Bias, *, scale: float = 1.0, cap: float | None = None, causal: bool = False
) -> Array:
    """softmax(capped(scale * q k) + bias) v, [B, H, T, W].

    Args:
      q_BHTK, k_BJSK, v_BJSW: of one dtype; softmax is computed in float32.
      bias: see `Bias`; a relative one is read from `distances`.
      scale: of the scores, before cap and bias.
      cap: squeezes scores into (-cap, cap) by a tanh; None for none.
      causal: whether `bias` forbids query t every key after t + S - T, which then are not read.
    """
    batch, heads, length, width = q_BHTK.shape
    grouped = (k_BJSK.shape[1], heads // k_BJSK.shape[1])
    assert bias.relative is None or bias.distances is not None
    distances = None if bias.distances is None else bias.distances.reshape(*grouped, -1)
    mask = bias.mask.reshape(bias.mask.shape[0], *(grouped if bias.mask.shape[1] == heads else (1, 1)), *bias.mask.shape[2:])
    q = q_BHTK.reshape(batch, *grouped, length, width)
    y = _attend(_Settings(scale, cap, causal), q, k_BJSK, v_BJSW, distances, mask)
    return y.reshape(batch, heads, length, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(settings: _Settings, q: Array, k: Array, v: Array, distances: Array | None, mask: Array) -> Array:
    return _forward(settings, q, k, v, distances, mask)[0]


def _forward(settings: _Settings, q: Array, k: Array, v: Array, distances: Array | None, mask: Array) -> tuple[Array, Any]:
    """The output [B, J, G, T, W], and what the backward pass needs."""

    def of_rows(q: Array, k: Array, v: Array, mask: Array) -> tuple[Array, Array]:
        ys, log_sums = [], []
        for queries, keys in _blocks(q, k, causal=settings.causal):
            relative = None if distances is None else _relative(distances, queries, keys, shape=(q.shape[3], k.shape[2]))
            scores, _ = _scores(settings, q[..., queries, :], k[:, :, keys], relative, _at(mask, queries, keys))
            most = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - most)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            y = _product("bjgts,bjsw->bjgtw", weights.astype(v.dtype), v[:, :, keys]) / total
            ys.append(y.astype(q.dtype))
            log_sums.append(most + jnp.log(total))
        return jnp.concatenate(ys, axis=3), jnp.concatenate(log_sums, axis=3)

    y, log_sums = _by_rows(of_rows, q, k, v, mask)
    return y, (q, k, v, distances, mask, y, log_sums)


def _backward(settings: _Settings, kept: Any, grad_y: Array) -> tuple[Array, Array, Array, Array | None, Array]:
    q, k, v, distances, mask, y, log_sums = kept
    dtype = q.dtype

    def of_rows(q: Array, k: Array, v: Array, mask: Array, y: Array, log_sums: Array, grad_y: Array) -> tuple[Array, ...]:
        grad_q = []
        grad_k, grad_v = (jnp.zeros(x.shape, jnp.float32) for x in (k, v))
        grad_distances = None if distances is None else jnp.zeros_like(distances)
        along = jnp.sum(grad_y.astype(jnp.float32) * y.astype(jnp.float32), axis=-1, keepdims=True)
        for queries, keys in _blocks(q, k, causal=settings.causal):
            q_here, grad_here, k_here, v_here = q[..., queries, :], grad_y[..., queries, :], k[:, :, keys], v[:, :, keys]
            relative = to_distances = None
            if distances is not None:
                of_block = functools.partial(_relative, queries=queries, keys=keys, shape=(q.shape[3], k.shape[2]))
                relative, to_distances = jax.vjp(of_block, distances)
            scores, slope = _scores(settings, q_here, k_here, relative, _at(mask, queries, keys))
            weights = jnp.exp(scores - log_sums[..., queries, :])
            grad_weights = _product("bjgtw,bjsw->bjgts", grad_here, v_here)
            grad_scores = weights * (grad_weights - along[..., queries, :])
            if to_distances is not None:
                grad_distances += to_distances(jnp.sum(grad_scores, axis=0))[0]
            grad_product = (grad_scores * (settings.scale if slope is None else slope * settings.scale)).astype(dtype)
            grad_q.append(_product("bjgts,bjsk->bjgtk", grad_product, k_here).astype(dtype))
            grad_k = grad_k.at[:, :, keys].add(_product("bjgts,bjgtk->bjsk", grad_product, q_here))
            grad_v = grad_v.at[:, :, keys].add(_product("bjgts,bjgtw->bjsw", weights.astype(dtype), grad_here))
        of_group = [] if grad_distances is None else [grad_distances[None]]
        return (jnp.concatenate(grad_q, axis=3), grad_k.astype(dtype), grad_v.astype(dtype), *of_group)

    grad_q, grad_k, grad_v, *of_groups = _by_rows(of_rows, q, k, v, mask, y, log_sums, grad_y)
    grad_distances = jnp.sum(of_groups[0], axis=0) if of_groups else None
    return grad_q, grad_k, grad_v, grad_distances, jnp.zeros_like(mask)


_attend.defvjp(_forward, _backward)


def _by_rows(of_rows: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """What a function of arrays makes of each group of rows, together; an array of one row is given to all."""
    batch = arrays[0].shape[0]
    groups = min(_ROW_GROUPS, batch)
    ends = [batch * number // groups for number in range(groups + 1)]
    made = [of_rows(*(x if x.shape[0] == 1 else x[start:end] for x in arrays)) for start, end in itertools.pairwise(ends)]
    return tuple(jnp.concatenate(parts) for parts in zip(*made, strict=True))


def _blocks(q: Array, k: Array, *, causal: bool) -> list[tuple[slice, slice]]:
    """The blocks of queries, each with the keys that it reads."""
    length, keys = q.shape[3], k.shape[2]
    count = -(-4 * math.prod(q.shape[:4]) * keys // _PIECE_BYTES)
    if causal:
        count = max(count, min(length // _CAUSAL_QUERIES + 1, _CAUSAL_BLOCKS))
    count = min(count, length)
    ends = [length * number // count for number in range(count + 1)]
    return [(slice(start, end), slice(0, keys - length + end if causal else keys)) for start, end in itertools.pairwise(ends)]


def _at(mask: Array, queries: slice, keys: slice) -> Array:
    """The part of a mask that a block reads."""
    return mask[..., queries if mask.shape[-2] > 1 else slice(None), keys if mask.shape[-1] > 1 else slice(None)]


def _relative(distances: Array, queries: slice, keys: slice, *, shape: tuple[int, int]) -> Array:
    """The relative bias [J, G, t, s] of a block of queries and the first keys, of T and S (`shape`) in all."""
    length, all_keys = shape
    before = all_keys - (distances.shape[-1] - length + 1)
    rows = queries.stop - queries.start
    first = length - queries.stop
    # A row shorter by one than what it repeats begins one further back each time: distances fall from query to query, without a gather.
    count = rows + keys.stop - before - 1
    part = jnp.pad(distances[..., first : first + count], [(0, 0), (0, 0), (0, 1)])
    repeated = jnp.broadcast_to(part[:, :, None], (*part.shape[:2], rows, count + 1)).reshape(*part.shape[:2], -1)
    block = repeated[..., : rows * count].reshape(*part.shape[:2], rows, count)[..., rows - 1 :]
    return jnp.pad(block, [(0, 0)] * 3 + [(before, 0)])


def _scores(settings: _Settings, q: Array, k: Array, relative: Array | None, mask: Array) -> tuple[Array, Array | None]:
    """Scores [B, J, G, T, S] in float32, and the slope of their cap, None where there is none."""
    scores = _product("bjgtk,bjsk->bjgts", q, k) * settings.scale
    slope = None
    if settings.cap is not None:
        squeezed = jnp.tanh(scores / settings.cap)
        scores, slope = settings.cap * squeezed, 1.0 - squeezed * squeezed
    return (scores if relative is None else scores + relative[None]) + mask, slope


def _product(letters: str, left: Array, right: Array) -> Array:
    return jnp.einsum(letters, left, right, preferred_element_type=jnp.float32)
