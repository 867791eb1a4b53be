"""Returns of the episodes behind flat rows: to keep the best of them, to bring rewards to a known range."""

import math
import warnings
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.errors import DataError

LEAST_RANGE: Final = 0.01
"""Least range of returns that rewards are scaled by, in largest returns."""


def episode_returns(reward: Float[Tensor, "n"], episode: Int[Tensor, "n"]) -> Float[Tensor, "e"]:
    """Undiscounted return of each episode, `[max(episode) + 1]` float64.

    Args:
        reward: `[n]`.
        episode: `[n]`, index of the episode of each row, every index from 0 on occurring.
    """
    returns = torch.zeros(int(episode.max()) + 1, dtype=torch.float64)
    return returns.index_add_(0, episode, reward.double())


def best_episode_rows(
    reward: Float[Tensor, "n"], episode: Int[Tensor, "n"], *, fraction: float
) -> Int[Tensor, "k"]:
    """Rows of the best episodes by undiscounted return, whole episodes, in their order.

    `max(1, round(fraction * episodes))` are kept; of equal returns the earlier episode.

    Args:
        reward: `[n]`.
        episode: `[n]`, as in `episode_returns`.
        fraction: share of the episodes, in (0, 1].
    """
    returns = episode_returns(reward, episode)
    count = max(1, round(fraction * len(returns)))
    is_kept = torch.zeros(len(returns), dtype=torch.bool)
    is_kept[returns.argsort(descending=True, stable=True)[:count]] = True
    return is_kept[episode].nonzero()[:, 0]


def return_range_scale(reward: Float[Tensor, "n"], episode: Int[Tensor, "n"]) -> float:
    """`1000 / (greatest - least return)`: rewards times this span a return range of 1000.

    The scaling of the reference code of implicit Q-learning. A range below a hundredth of the largest return
    is taken for a hundredth of it, and warned of: where all episodes return about the same, the range says
    nothing of the size of rewards.

    Raises:
        DataError: all episodes have the same return.
    """
    returns = episode_returns(reward, episode)
    span = float(returns.max() - returns.min())
    least = LEAST_RANGE * float(returns.abs().max())
    if 0 < span < least:
        warnings.warn(
            f"The returns of all {len(returns)} episodes lie within {span:.3g} of one another, at a size of "
            f"{float(returns.abs().max()):.3g}: rewards are scaled by a hundredth of that size instead of by "
            "the range. Remedy: set reward_transform: standardise.",
            RuntimeWarning,
            stacklevel=2,
        )
        span = least
    if not math.isfinite(span) or span <= 0:
        raise DataError(
            f"all {len(returns)} episodes have the same return, so rewards cannot be scaled by their range",
            remedy="Set reward_transform: standardise.",
        )
    return 1000.0 / span


def discounted_return_scale(
    reward: Float[Tensor, "n"], episode: Int[Tensor, "n"], *, discount: float
) -> float:
    """Population deviation of the discounted returns; their mean size where all are alike, 1 where all are 0.

    Args:
        reward: `[n]`, episodes one after the other.
        episode: `[n]`, as in `episode_returns`.
        discount: in [0, 1].
    """
    rows = torch.arange(len(episode))
    is_first = torch.ones_like(episode, dtype=torch.bool)
    is_first[1:] = episode[1:] != episode[:-1]
    first = torch.where(is_first, rows, 0).cummax(0).values
    returns = episode_returns(reward * discount ** (rows - first).double(), episode)
    return float(returns.std(correction=0)) or float(returns.abs().mean()) or 1.0
