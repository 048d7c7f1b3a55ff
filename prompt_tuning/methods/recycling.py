"""A prompt of one model made into one of another, by a map between their embeddings; no further training.

Paper: Lester et al. 2022, "Reducing Retraining by Recycling Parameter-Efficient Prompts" (arXiv:2208.05577).

What this file follows: the models share a vocabulary; a map is fitted on the embeddings of 4,000 of its tokens and applied to each row of
the prompt (section 3). `linear` fits the matrix of least squares from one embedding to the other (`v2v-lin`); `combination` writes the row
as a combination of the source's token embeddings and takes the same combination of the target's (`lin-comb`).

Deviations: the paper's `v2v-nn`, a small network in place of the matrix, is not here. Where tokens are fewer than the source's width, the
matrix is the one of least norm, as is the combination always.

Axes: P prompt length, V vocabulary, S and T model width of source and target.
"""

from typing import Literal

import numpy as np

from prompt_tuning.errors import UserError


def recycled(
    prompt_PS: np.ndarray,
    source_VS: np.ndarray,
    target_VT: np.ndarray,
    *,
    by: Literal["linear", "combination"] = "linear",
    first_token: int = 0,
    num_tokens: int = 4000,
) -> np.ndarray:
    """The prompt for the target model, [P, T] in float32.

    Args:
      prompt_PS: the prompt of the source model.
      source_VS, target_VT: the models' token embeddings; row v is the same token in both.
      by: the map, see above.
      first_token, num_tokens: which rows the map is fitted on; fewer where the smaller vocabulary ends.

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
    raise UserError(f"recycled: wanted 'linear' or 'combination', got {by!r}")
