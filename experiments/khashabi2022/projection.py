"""What text a prompt projects to (Khashabi et al. 2022), and how much of a given text is in it.

Axes: P prompt length, V vocabulary, D model width.
"""

import collections
from collections.abc import Sequence

import numpy as np


def nearest_tokens(prompt_PD: np.ndarray, embedding_VD: np.ndarray) -> np.ndarray:
    """The token whose embedding is nearest to each row by Euclidean distance, [P]."""
    prompt, table = np.asarray(prompt_PD, np.float64), np.asarray(embedding_VD, np.float64)
    # Less the squared norm of the row, which all tokens have in common.
    distance_PV = np.square(table).sum(axis=1)[None] - 2 * prompt @ table.T
    return distance_PV.argmin(axis=1)


def token_f1(found: Sequence[int] | np.ndarray, wanted: Sequence[int]) -> float:
    """F1 of the overlap of two texts as bags of tokens, 0..1."""
    common = sum((collections.Counter(map(int, found)) & collections.Counter(map(int, wanted))).values())
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def squared_distance(prompt_PD: np.ndarray, text_PD: np.ndarray) -> float:
    """The mean over rows of the squared distance from the text's embeddings: what gamma multiplies."""
    return float(np.square(np.asarray(prompt_PD, np.float64) - text_PD).sum(axis=1).mean())
