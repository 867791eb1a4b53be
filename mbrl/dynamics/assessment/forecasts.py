"""What held-out episodes say of particles: how far to believe them at each horizon, how wide to draw them."""

import dataclasses
import math
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.data.dataset import Transitions
from mbrl.dynamics.assessment.open_loop import OpenLoop, Segments, bound_errors
from mbrl.dynamics.forecast import MARGIN, Forecast

LEVEL: Final = 0.9
"""Of the intervals that are fitted; those of other levels are widened alike."""

_LEAST_SEGMENTS: Final = 10  # that a step must be reached by; later ones take what the last such step has
_WIDTHS: Final = (0.05, 100.0)  # factors that an interval may have

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ForecastFigures:
    """How good forecasts are on segments that they were not fitted to.

    Attributes:
        nrmse: `[K]` root mean square error over segments, mean over dimensions, standard deviations.
        coverage: `[K]` share of coordinates inside the 90 % interval.
    """

    nrmse: Array
    coverage: Array


def plain_forecast(rows: Transitions) -> Forecast:
    """Particles as they are, in the box of the training rows.

    Args:
        rows: with known successors.
    """
    both = np.concatenate((rows.observation, rows.next_observation))
    low, high = both.min(0), both.max(0)
    spare = MARGIN * (high - low)
    obs_dim = both.shape[1]
    center = [*rows.observation.mean(0, dtype=np.float64), rows.reward.mean(dtype=np.float64)]
    ones = torch.ones(1, obs_dim + 1)
    return Forecast(
        torch.tensor(center),
        ones,
        ones,
        low=torch.from_numpy(low - spare),
        high=torch.from_numpy(high + spare),
    )


def fit_forecast(
    base: Forecast, loop: OpenLoop, segments: Segments, chosen: NDArray[np.bool_] | None = None
) -> Forecast:
    """The share and the width of each step and dimension, by least squares and by counting.

    `share = sum (m - c) (y - c) / sum (m - c)^2`, put into [0, 1], which never raises the error on these
    segments above that of c. The width is the least factor with which 90 % of the outcomes lie inside, with
    the rank `ceil(0.9 (n + 1))` of split conformal prediction (Vovk et al. 2005) among n segments; times
    `exp(s / sqrt(K))`, s the deviation of the logarithms of the factors that each of K episodes asks for
    alone. Segments of an episode are alike, so few episodes that differ say little of the next: the interval
    is wider by a standard error.

    Args:
        base: center and box.
        loop: particles on `segments`.
        segments: what really happened.
        chosen: `[s]`, those to be fitted to; None for all.
    """
    rows = loop.alive if chosen is None else loop.alive & chosen[:, None]
    reached = int((rows.sum(0) >= _LEAST_SEGMENTS).cumprod().sum())
    if reached == 0:
        return base
    outcome, center = _outcomes(segments), base.center.double().numpy()
    share, width = np.ones((2, reached, len(center)))
    for k in range(reached):
        mean, low, high, truth = (
            values[rows[:, k], k] for values in (loop.mean, loop.low, loop.high, outcome)
        )
        anomaly = _finite(mean, center) - center
        power = np.square(anomaly).sum(0)
        moment = (anomaly * (truth - center)).sum(0)
        share[k] = np.divide(moment, power, out=np.ones_like(power), where=power > 0).clip(0.0, 1.0)
        error = truth - (center + share[k] * anomaly)
        width[k] = _widths(error, low - mean, high - mean, segments.episode[rows[:, k]])
    return Forecast(
        base.center, torch.from_numpy(share), torch.from_numpy(width), low=base.low, high=base.high
    )


def judge_forecasts(
    base: Forecast, loop: OpenLoop, segments: Segments, *, obs_std: Array, varies: NDArray[np.bool_]
) -> ForecastFigures:
    """Figures of forecasts, each of a half of the episodes by one that was fitted to the other half.

    Args:
        base: center and box.
        loop: particles on `segments`.
        segments: what really happened.
        obs_std: `[obs_dim]` deviations of the training observations.
        varies: `[obs_dim]`, dimensions that count; all of them where none does.
    """
    is_first = _first_half(segments.episode)
    mean, low, high = (np.zeros_like(loop.mean) for _ in range(3))
    for half in (is_first, ~is_first):
        forecast = fit_forecast(base, loop, segments, ~half)
        for k in range(mean.shape[1]):
            parts = (torch.from_numpy(values[half, k]).float() for values in (loop.mean, loop.low, loop.high))
            found = forecast.correct(k, *parts)
            mean[half, k], low[half, k], high[half, k] = (part.numpy() for part in found)
    dims = np.flatnonzero(varies if varies.any() else ~varies)
    truth = segments.observations[:, 1:, dims].astype(np.float64)
    mean, low, high = (values[..., dims] for values in (mean, low, high))
    alive = loop.alive[..., None]
    count = np.maximum(alive.sum(0), 1)
    error = bound_errors((mean - truth) / obs_std[dims])
    inside = ((truth >= low) & (truth <= high) & alive).sum((0, 2)) / (count[:, 0] * len(dims))
    return ForecastFigures(np.sqrt((np.square(error) * alive).sum(0) / count).mean(1), inside)


def _outcomes(segments: Segments) -> Array:
    """`[s, K, k]` what followed each step: the observation, then the reward."""
    parts = (segments.observations[:, 1:], segments.rewards[..., None])
    return np.concatenate(parts, 2).astype(np.float64)


def _finite(values: Array, instead: Array) -> Array:
    return np.where(np.isfinite(values), values, instead)


def _widths(error: Array, below: Array, above: Array, episode: NDArray[np.int64]) -> Array:
    """`[k]` factors with which 90 % of `error` lie between `below` and `above`, and a standard error."""
    side = np.where(error < 0, np.minimum(below, 0.0), np.maximum(above, 0.0))
    # How far each is out, in distances of the end on its side; a constant without error needs no width.
    least = np.divide(error, side, out=np.where(error == 0, 0.0, np.inf), where=side != 0)
    names = np.unique(episode)
    needed, spread = _needed(least), np.zeros(error.shape[1])
    if len(names) > 1:
        alone = np.stack([_needed(least[episode == name]) for name in names])
        spread = np.log(alone).std(0, ddof=1) / math.sqrt(len(names))
    return (needed * np.exp(spread)).clip(*_WIDTHS)


def _needed(least: Array) -> Array:
    """`[k]` the factor of the conformal rank; 1 where none is needed or none helps."""
    count = len(least)
    rank = min(count, math.ceil(LEVEL * (count + 1)))
    found = np.sort(least, 0)[rank - 1]
    return np.where(np.isfinite(found) & (found > 0), found.clip(*_WIDTHS), 1.0)


def _first_half(episode: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Every other episode; the earlier half of the segments where there is but one, which are in order."""
    names, place = np.unique(episode, return_inverse=True)
    if len(names) > 1:
        return place % 2 == 0
    return np.arange(len(episode)) < len(episode) // 2
