"""The rows of a cache: what a model's `init_cache` makes and its `decode_step` grows, a dict of arrays.

Letters: B rows, R rows taken.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp

Cache = dict[str, jax.Array]

# Where the rows stand; None: the same for all. Keys and values have the layers before the rows, and are not named here.
_ROW_AXIS = {"filled": None, "cross_mask": 0, "positions": 0, "lengths": 0, "task_ids": 0}


def row_axis(name: str) -> int | None:
    """The axis on which the rows of a cache's array stand; None where all rows share it."""
    return _ROW_AXIS.get(name, 1)


def take_rows(cache: Cache, rows_R: jax.Array, *, same: Collection[str] = ()) -> Cache:
    """A cache whose row r is row `rows_R[r]` of the given one: several continuations of one input share what the encoder gave.

    Args:
      cache: of B rows.
      rows_R: int32, each at least 0 and less than B.
      same: names of what is known to be the same in the rows that change places, and is left where it is.
    """
    taken = {}
    for name, value in cache.items():
        axis = row_axis(name)
        taken[name] = value if axis is None or name in same else jnp.take(value, rows_R, axis=axis)
    return taken
