"""BVFT: which of several value functions of one policy is nearest to Bellman-consistent, from data alone.

Xie & Jiang 2021; for evaluation (BVFT-PE) Zhang & Jiang 2021, section 4. Squared Bellman errors cannot rank
value functions where the task is stochastic, since noise of the target adds to them. Averaging the targets of
rows on which two candidates agree removes the noise, and the true function survives the test against every
other.
"""

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import scipy.stats
import torch

from mbrl.data.dataset import Dataset
from mbrl.ope.log.layout import Array
from mbrl.ope.value.fqe import FQEResult

CUTS: Final = (0.05, 0.1, 0.2, 0.5)
"""Widths of a group of rows, as shares of the range of all values."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class BVFTResult:
    """The candidates' losses.

    Attributes:
        cuts: widths of the groups.
        losses: `[cuts, m]`, each candidate's largest loss against the others, reward units.
        ranks: `[m]`, mean rank over the cuts; 1 is the best.
    """

    cuts: tuple[float, ...]
    losses: Array
    ranks: Array

    @property
    def best(self) -> int:
        """The candidate with the least mean rank; the first among equals."""
        return int(np.argmin(self.ranks))


def pairwise_losses(action_value: Array, target: Array, *, cut: float) -> Array:
    """`[m, m]`: `rms(Q_i - mean of i's targets over rows of like (Q_i, Q_j))`.

    Args:
        action_value: `[m, N]`, `Q_i(s, a)` of the candidates on N logged rows.
        target: `[m, N]`, `r + g V_i(s')` of the same rows.
        cut: width of a group as a share of the range of all values.
    """
    low, width = action_value.min(), float(np.ptp(action_value)) * cut
    group = np.zeros(action_value.shape, dtype=np.int64)
    if width > 0.0:
        group = np.floor((action_value - low) / width).astype(np.int64)
    count = int(group.max()) + 1
    m = action_value.shape[0]
    losses = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            cell = group[i] * count + group[j]
            rows = np.maximum(np.bincount(cell, minlength=count * count), 1)
            mean = np.bincount(cell, weights=target[i], minlength=count * count) / rows
            losses[i, j] = np.sqrt(np.square(action_value[i] - mean[cell]).mean())
    return losses


def bvft(action_value: Array, target: Array, *, cuts: Sequence[float] = CUTS) -> BVFTResult:
    """Ranks candidates by their largest loss against any other; ranks are averaged over the cuts.

    Args:
        action_value: `[m, N]`, `Q_i(s, a)` on N logged rows.
        target: `[m, N]`, `r + g V_i(s')`, without the second term where the task ended.
        cuts: widths of the groups.

    Raises:
        ValueError: shapes differ, or a value is not finite.
    """
    q, y = np.asarray(action_value, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if q.ndim != 2 or q.shape != y.shape or q.size == 0:
        raise ValueError(f"values and targets must be [m, N], not of shapes {q.shape} and {y.shape}")
    if not (np.isfinite(q).all() and np.isfinite(y).all()):
        raise ValueError("a value or a target is not finite")
    losses = np.stack([pairwise_losses(q, y, cut=cut).max(1) for cut in cuts])
    ranks = np.asarray(scipy.stats.rankdata(losses, axis=1), dtype=np.float64).mean(0)
    return BVFTResult(tuple(cuts), losses, ranks)


def rank_fits(
    fits: Sequence[FQEResult], dataset: Dataset, *, generator: torch.Generator, cuts: Sequence[float] = CUTS
) -> BVFTResult:
    """Ranks value fits of one policy, such as fits with different hyper-parameters.

    Args:
        fits: of the same policy and estimand.
        dataset: rows that judge; best other ones than those of the fits.
        generator: draws the actions of a stochastic policy.
        cuts: widths of the groups.
    """
    pairs = [_values_and_targets(fit, dataset, generator) for fit in fits]
    return bvft(np.stack([q for q, _ in pairs]), np.stack([y for _, y in pairs]), cuts=cuts)


def _values_and_targets(fit: FQEResult, dataset: Dataset, generator: torch.Generator) -> tuple[Array, Array]:
    action_value, value = fit.on_log(dataset, generator=generator)
    rows, horizon = dataset.transitions(), fit.estimand.horizon
    following = np.delete(value, np.cumsum(dataset.episode_lengths + 1) - dataset.episode_lengths - 1)
    going_on = np.where(rows.terminated, 0.0, fit.estimand.discount)
    target = rows.reward.astype(np.float64) + going_on * following
    counted = np.ones(len(rows), dtype=np.bool_) if horizon is None else rows.step < horizon
    return action_value[counted], target[counted]
