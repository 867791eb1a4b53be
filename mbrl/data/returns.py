"""Returns of the episodes behind flat rows: to keep the best of them, to bring rewards to a known range."""

import dataclasses
import math
import warnings
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.types import TransitionBatch
from mbrl.data.dataset import Dataset


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class LoggedEpisodes:
    """The whole episodes behind some rows, also where the rows are but blocks of them.

    A block of an episode has neither its return nor its first state: both are asked of the whole one.

    Attributes:
        episode: `[n]` int64, episode of each row, 0 to e - 1.
        reward: `[m]` rewards of all steps of the episodes, one after the other.
        reward_episode: `[m]` int64, episode of each of them.
        first_observation: `[e, obs_dim]`, where each episode starts, raw units.
    """

    episode: Int[Tensor, "n"]
    reward: Float[Tensor, "m"]
    reward_episode: Int[Tensor, "m"]
    first_observation: Float[Tensor, "e obs_dim"]

    @classmethod
    def of(cls, dataset: Dataset) -> "LoggedEpisodes":
        """Those of a dataset, or of a part that was cut from one."""
        whole = dataset.logged_episodes
        lengths = [len(episode) for episode in whole]
        return cls(
            episode=torch.from_numpy(np.repeat(dataset.logged_index, dataset.episode_lengths)),
            reward=torch.tensor(np.concatenate([episode.rewards for episode in whole])),
            reward_episode=torch.from_numpy(np.repeat(np.arange(len(whole), dtype=np.int64), lengths)),
            first_observation=torch.tensor(np.stack([episode.observations[0] for episode in whole])),
        )

    @classmethod
    def of_rows(cls, rows: TransitionBatch, episode: Int[Tensor, "n"]) -> "LoggedEpisodes":
        """Those of rows that are whole episodes one after the other, `episode` telling which."""
        is_first = torch.ones_like(episode, dtype=torch.bool)
        is_first[1:] = episode[1:] != episode[:-1]
        return cls(episode, rows.reward, episode, rows.observation[is_first])

    def best_rows(self, *, fraction: float) -> Int[Tensor, "k"]:
        """Rows of the best episodes by undiscounted return, in their order (`best_episodes`)."""
        returns = episode_returns(self.reward, self.reward_episode)
        return best_episodes(returns, fraction=fraction)[self.episode].nonzero()[:, 0]

    def return_range_scale(self) -> float:
        """`return_range_scale` of the whole episodes.

        Raises:
            DataError: all episodes have the same return.
        """
        return return_range_scale(self.reward, self.reward_episode)

    def discounted_return_scale(self, *, discount: float) -> float:
        """`discounted_return_scale` of the whole episodes."""
        return discounted_return_scale(self.reward, self.reward_episode, discount=discount)


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


def best_episodes(returns: Float[Tensor, "e"], *, fraction: float) -> Bool[Tensor, "e"]:
    """Which episodes are the best by return: `max(1, round(fraction * e))`; of equal ones the earlier.

    Args:
        returns: `[e]`.
        fraction: share of the episodes, in (0, 1].
    """
    is_best = torch.zeros(len(returns), dtype=torch.bool)
    is_best[returns.argsort(descending=True, stable=True)[: max(1, round(fraction * len(returns)))]] = True
    return is_best


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
