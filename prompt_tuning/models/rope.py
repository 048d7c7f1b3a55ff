"""Rotary position embeddings and their scalings.

Su et al. 2021 (arXiv:2104.09864); linear scaling: Chen et al. 2023 (arXiv:2306.15595); "llama3": the Llama 3.1 release, which divides the
low frequencies, keeps the high ones and blends between; "yarn": Peng et al. 2023
(arXiv:2309.00071).

The two coordinates that turn together are i and i + K/2, as in Hugging Face's weights; releases that pair 2i and 2i + 1 are permuted where
they are read (`interop/llama2c.py`).

Axes: B batch, T length, H heads, K head width.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Scaling = Literal["none", "linear", "llama3", "yarn"]


def frequencies(
    width: int,
    *,
    base: float,
    scaling: Scaling = "none",
    factor: float = 1.0,
    low_factor: float = 1.0,
    high_factor: float = 4.0,
    original_length: int = 8192,
    fast: float = 32.0,
    slow: float = 1.0,
) -> np.ndarray:
    """Radians a position, float32 [width / 2], highest first.

    Args:
      width: K, even.
      base: the slowest wave is nearly 2 pi * base positions long.
      scaling: "linear" divides all by `factor`; "llama3" divides those whose wave is longer than original_length / low_factor, keeps those
        whose wave is shorter than original_length / high_factor, and blends between; "yarn" keeps those that turn `fast` times within
        original_length, divides those that turn `slow` times, and blends between by their place in the order.
      factor, low_factor, high_factor, original_length, fast, slow: of the scaling.
    """
    turn_K = 1.0 / base ** (np.arange(0, width, 2, dtype=np.float64) / width)
    if scaling == "linear":
        turn_K = turn_K / factor
    elif scaling == "llama3":
        waves = original_length * turn_K / (2 * math.pi)
        kept = np.clip((waves - low_factor) / (high_factor - low_factor), 0.0, 1.0)
        turn_K = turn_K * (kept + (1.0 - kept) / factor)
    elif scaling == "yarn":
        turns = np.array([fast, slow])
        places = width * np.log(original_length / (turns * 2 * math.pi)) / (2 * math.log(base))
        low, high = max(math.floor(places[0]), 0), min(math.ceil(places[1]), width - 1)
        divided = np.clip((np.arange(width // 2) - low) / max(high - low, 0.001), 0.0, 1.0)
        turn_K = turn_K * (1.0 - divided + divided / factor)
    return turn_K.astype(np.float32)


def angles(positions_BT: Array, turn_K: np.ndarray) -> tuple[Array, Array]:
    """Cosine and sine [B, 1, T, K / 2] in float32 of each position's angles."""
    angle = positions_BT.astype(jnp.float32)[:, None, :, None] * jnp.asarray(turn_K)[None, None, None, :]
    return jnp.cos(angle), jnp.sin(angle)


def rotate(x_BHTK: Array, turned: tuple[Array, Array]) -> Array:
    """Turns each pair of coordinates by its angle; computed in float32."""
    cos, sin = turned
    left, right = jnp.split(x_BHTK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).astype(x_BHTK.dtype)
