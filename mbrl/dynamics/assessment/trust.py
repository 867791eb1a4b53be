"""How far ahead a model can be trusted: error curves with their intervals, and the trusted horizon."""

import dataclasses
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.rng import RngStreams
from mbrl.dynamics.assessment.open_loop import OpenLoop, Segments, bound_errors
from mbrl.dynamics.assessment.resampling import INTERVAL, episode_weights, weighted_medians
from mbrl.dynamics.config import AssessmentConfig
from mbrl.dynamics.report import OpenLoopReport, to_floats, to_integers

REWARD_SLACK: Final = 1.1
"""How much larger than that of the mean reward the median error of a reward may be that is mostly noise."""


@dataclasses.dataclass(frozen=True, slots=True)
class RewardMoments:
    """What a reward error is held against, reward units.

    Attributes:
        mean: of the training rewards.
        scale: their deviation.
    """

    mean: float
    scale: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ErrorCurve:
    """Median error over segments by horizon, with its 90 % interval over episodes.

    Attributes:
        median: `[K]`.
        low: `[K]`.
        high: `[K]`.
    """

    median: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def error_curve(
    error: NDArray[np.float64],
    alive: NDArray[np.bool_],
    episode: NDArray[np.int64],
    *,
    draws: int,
    generator: torch.Generator,
) -> ErrorCurve:
    """`e_k = median_s error_{s,k}` over the segments that reach k; NaN where none does.

    Args:
        error: `[s, K]`.
        alive: `[s, K]`, which of them count.
        episode: `[s]`, where each segment comes from; whole episodes are resampled.
        draws: resamples behind the interval.
        generator: of the resamples.
    """
    weights, column = episode_weights(episode, draws, generator)
    # A segment counts as often as its episode was drawn: segments of an episode are not independent.
    by_segment = weights[:, column]
    horizon = error.shape[1]
    # NaN where no segment arrives: comparisons with it are False, so such steps are never trusted.
    median, low, high = (np.full(horizon, np.nan) for _ in range(3))
    for k in range(horizon):
        rows = alive[:, k]
        # Segments only ever end, so none reaches a later step either.
        if not rows.any():
            break
        median[k] = np.median(error[rows, k])
        # A resample that drew none of the episodes that get here has no median.
        medians = weighted_medians(error[rows, k], by_segment[:, rows])
        low[k], high[k] = np.nanquantile(medians, INTERVAL)
    return ErrorCurve(median, low, high)


def trusted_horizon(
    curve: ErrorCurve,
    persistence: NDArray[np.float64],
    coverage: NDArray[np.float64],
    *,
    tolerance: float,
    least_coverage: float,
) -> int:
    """Largest k such that every j <= k has `high_j <= tolerance`, `e_j < e0_j`, and enough coverage.

    Args:
        curve: the model's error; the upper end of its 90 % interval counts.
        persistence: `[K]` median error of "nothing changes".
        coverage: `[K]` coverage of the 90 % particle interval.
        tolerance: largest error, standard deviations of the dataset.
        least_coverage: in [0, 1].
    """
    # The upper end of the interval: few episodes must not earn a long horizon by luck. NaN trusts nothing.
    is_trusted = (curve.high <= tolerance) & (curve.median < persistence) & (coverage >= least_coverage)
    # Up to the first failure: a step that is right again by chance is reached through states that are not.
    return int(np.logical_and.accumulate(is_trusted).sum())


def reward_horizon(curve: ErrorCurve, constant: NDArray[np.float64], *, tolerance: float) -> int:
    """Largest k such that every j <= k has `high_j <= tolerance` or `e_j <= 1.1 e0_j`.

    The second is for rewards that are mostly noise: no model predicts them better than their mean does, and
    to predict that is enough.

    Args:
        curve: error of the predicted reward, deviations of the reward.
        constant: `[K]` median error of always predicting the mean reward.
        tolerance: largest error, deviations of the reward.
    """
    # Good by itself, or as good as noise permits: the slack is
    # for medians of two curves that are both estimated.
    is_trusted = (curve.high <= tolerance) | (curve.median <= REWARD_SLACK * constant)
    return int(np.logical_and.accumulate(is_trusted).sum())


def judge_open_loop(
    result: OpenLoop, segments: Segments, *, reward: RewardMoments, config: AssessmentConfig, rng: RngStreams
) -> OpenLoopReport:
    """Curves of the model and its baselines, and the trusted horizon: of observations and rewards.

    All curves are resampled alike, so that they can be compared point by point.

    Args:
        result: of the model and its baselines on `segments`.
        segments: what really happened.
        reward: unit and baseline of reward errors.
        config: tolerances and resamples.
        rng: streams of the report.
    """
    # Behind the last step that any segment reaches there is nothing to judge.
    reached = int(result.alive.any(0).sum())
    reward_error, constant_error = (
        np.abs(bound_errors((predicted - segments.rewards) / reward.scale))
        for predicted in (result.reward, np.float64(reward.mean))
    )
    curve, persistence, linear, reward_curve, constant = (
        error_curve(
            error[:, :reached],
            result.alive,
            result.episode,
            draws=config.bootstrap_draws,
            generator=rng.at("resample_segments"),
        )
        for error in (result.error, result.persistence, result.linear, reward_error, constant_error)
    )
    reward_trusted = reward_horizon(reward_curve, constant.median, tolerance=config.trust_error)
    trusted = trusted_horizon(
        curve,
        persistence.median,
        result.coverage[:reached],
        tolerance=config.trust_error,
        least_coverage=config.trust_coverage,
    )
    return OpenLoopReport(
        segments=to_integers(result.alive[:, :reached].sum(0)),
        steps=tuple(range(1, reached + 1)),
        error=to_floats(curve.median),
        low=to_floats(curve.low),
        high=to_floats(curve.high),
        persistence=to_floats(persistence.median),
        linear=to_floats(linear.median),
        nrmse=to_floats(result.nrmse[0, :reached]),
        nrmse_persistence=to_floats(result.nrmse[1, :reached]),
        nrmse_linear=to_floats(result.nrmse[2, :reached]),
        coverage=to_floats(result.coverage[:reached]),
        ended_early=to_floats(result.ended_early[:reached]),
        tolerance=config.trust_error,
        least_coverage=config.trust_coverage,
        trusted_horizon=min(trusted, reward_trusted),
        reward_error=to_floats(reward_curve.median),
        reward_high=to_floats(reward_curve.high),
        reward_constant=to_floats(constant.median),
        observation_horizon=trusted,
        reward_horizon=reward_trusted,
    )
