"""Which of a list of vectors an observation is: the look-up of models of discrete states."""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK: Final = 4_096  # rows whose distances to all codes are computed together


def nearest_code(obs: Float[Tensor, "b d"], codes: Float[Tensor, "S d"]) -> Int[Tensor, "b"]:
    """Index of the code that each observation is, or is nearest to.

    Args:
        obs: `[b, d]`, raw units.
        codes: `[S, d]`, raw units.
    """
    found = torch.empty(len(obs), dtype=torch.int64, device=obs.device)
    for first in range(0, len(obs), _BLOCK):
        rows = slice(first, first + _BLOCK)
        found[rows] = torch.cdist(obs[rows], codes, compute_mode="use_mm_for_euclid_dist").argmin(-1)
    # Matrix products are fast and lose digits: what they do not find exactly, differences do.
    odd = (codes[found] != obs).any(-1).nonzero()[:, 0]
    for first in range(0, len(odd), _BLOCK):
        rows = odd[first : first + _BLOCK]
        distance = torch.cdist(obs[rows], codes, compute_mode="donot_use_mm_for_euclid_dist")
        found[rows] = distance.argmin(-1)
    return found
