"""Rows that sum up several steps of an episode: what returns of several steps are learned from."""

import dataclasses

import torch
from jaxtyping import Int
from torch import Tensor

from mbrl.core.errors import DataError
from mbrl.core.types import TransitionBatch, take


def sum_steps(
    rows: TransitionBatch, episode: Int[Tensor, "n"], *, steps: int, discount: float
) -> TransitionBatch:
    """`(s_t, a_t, sum_{k<n} g^k r_{t+k}, s_{t+n})` of steps with n after them (Sutton & Barto, 7.1).

    An end within the n steps ends the sum. Steps nearer than n to where a log was cut are left out: their sum
    would bootstrap with another power of the discount than that of all others. The row's next action and
    masks are those of `s_{t+n}`.

    Args:
        rows: whole episodes one after the other.
        episode: `[n]`, episode of each row.
        steps: n, >= 1.
        discount: g, in [0, 1].

    Raises:
        DataError: no step has n after it.
    """
    if steps == 1:
        return rows
    start = torch.arange(len(rows), device=episode.device)
    last, length, reward = start, torch.ones_like(start), rows.reward.clone()
    goes_on = ~rows.terminated
    for k in range(1, steps):
        ahead = (start + k).clamp_max(len(rows) - 1)
        # Within the log, the same episode, and nothing has ended on the way.
        goes_on = goes_on & (start + k < len(rows)) & (episode[ahead] == episode)
        reward += discount**k * rows.reward[ahead].masked_fill(~goes_on, 0.0)
        last, length = torch.where(goes_on, ahead, last), length + goes_on
        goes_on = goes_on & ~rows.terminated[ahead]
    following = take(rows, last)
    whole = ((length == steps) | following.terminated).nonzero()[:, 0]
    if len(whole) == 0:
        raise DataError(
            f"no step of the log has {steps} steps after it",
            remedy="Set learner.n_steps to fewer than the steps of an episode.",
        )
    summed = dataclasses.replace(
        following,
        observation=rows.observation,
        action=rows.action,
        action_mask=rows.action_mask,
        reward=reward,
    )
    return take(summed, whole)
