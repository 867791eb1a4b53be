"""Intervals over episodes: rows of one episode are not independent, so whole episodes are drawn again."""

import numpy as np
import torch
from numpy.typing import NDArray

INTERVAL = (0.05, 0.95)
"""Ends of the 90 % intervals of this package."""


def episode_weights(
    episode: NDArray[np.int64], draws: int, generator: torch.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """How often each episode occurs in each resample.

    Args:
        episode: `[n]` episode of each row.
        draws: resamples.
        generator: source of the draws.

    Returns:
        `[draws, episodes]` counts, and `[n]` the column of each row.
    """
    names, column = np.unique(episode, return_inverse=True)
    count = len(names)
    drawn = torch.randint(count, (draws, count), generator=generator).numpy()
    weights = np.zeros((draws, count))
    # `add.at` counts an episode that was drawn twice as two, where `weights[...] += 1` would count it once.
    np.add.at(weights, (np.arange(draws)[:, None], drawn), 1.0)
    return weights, column.astype(np.int64).reshape(-1)


def weighted_medians(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median of `values` `[n]` under each row of `weights` `[draws, n]`; NaN where all weights are 0."""
    # The first value at which half of the weight lies below or at it.
    order = np.argsort(values)
    cumulative = np.cumsum(weights[:, order], 1)
    total = cumulative[:, -1:]
    place = np.minimum((cumulative < 0.5 * total).sum(1), len(values) - 1)
    return np.where(total[:, 0] > 0, values[order][place], np.nan)


def rank_correlation(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    *,
    weights: NDArray[np.float64],
    column: NDArray[np.int64],
) -> tuple[float, float, float]:
    """Spearman's rank correlation with its 90 % interval over episodes; 0 where a side is constant.

    Ranks are those of all rows; resamples weight them by episode.

    Args:
        first: `[n]`.
        second: `[n]`.
        weights: `[draws, episodes]`, from `episode_weights`.
        column: `[n]`, likewise.

    Returns:
        Correlation, lower end, upper end.
    """
    # Weighted moments are sums over episodes, so a resample is a product with its counts: no loop over rows.
    x, y = _centred_ranks(first), _centred_ranks(second)
    moments = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    by_episode = np.stack([np.bincount(column, moment, weights.shape[1]) for moment in moments])
    value = _correlation(by_episode.sum(1)[:, None])[0]
    draws = _correlation(by_episode @ weights.T)
    low, high = np.quantile(draws, INTERVAL)
    return float(value), float(low), float(high)


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, ties at their mean, around 0 and within +-1/2."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)  # ties of a value hold the places last - count + 1 .. last
    ranks = (last - 0.5 * (counts + 1))[inverse.reshape(-1)]
    # Centred, so that the differences of moments below hardly cancel.
    return ranks / len(values) - 0.5


def _correlation(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    count, x, y, xx, yy, xy = moments
    count = np.maximum(count, 1.0)
    mean_x, mean_y = x / count, y / count
    covariance = xy / count - mean_x * mean_y
    spread = (xx / count - mean_x**2) * (yy / count - mean_y**2)
    # Products of variances of ranks below 1/2: less than this is rounding, and the correlation undefined.
    is_varying = spread > 1e-20
    return np.where(is_varying, covariance / np.sqrt(np.where(is_varying, spread, 1.0)), 0.0)
