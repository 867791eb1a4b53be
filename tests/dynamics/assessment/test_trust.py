import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.dynamics.assessment.open_loop import OpenLoop, Segments
from mbrl.dynamics.assessment.trust import (
    ErrorCurve,
    RewardMoments,
    error_curve,
    judge_open_loop,
    reward_horizon,
    trusted_horizon,
)
from mbrl.dynamics.config import AssessmentConfig


@pytest.mark.parametrize(
    ("high", "median", "coverage", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.2], [0.1] * 4, [0.9] * 4, 4),
        ([0.1, 0.4, 0.1, 0.1], [0.1] * 4, [0.9] * 4, 1),  # a later good step does not heal an early bad one
        ([0.1] * 4, [0.1, 0.1, 0.6, 0.1], [0.9] * 4, 2),  # worse than persistence
        ([0.1] * 4, [0.1] * 4, [0.79, 0.9, 0.9, 0.9], 0),
    ],
)
def test_trusted_horizon_by_hand(high, median, coverage, expected):
    curve = ErrorCurve(np.array(median), np.array(median), np.array(high))
    assert (
        trusted_horizon(curve, np.full(4, 0.5), np.array(coverage), tolerance=0.3, least_coverage=0.8)
        == expected
    )


def test_error_curve_is_the_median_of_segments_that_get_there():
    error = np.array([[1.0, 5.0], [2.0, 7.0], [4.0, 100.0]])
    alive = np.array([[True, True], [True, True], [True, False]])
    curve = error_curve(error, alive, np.arange(3), draws=200, generator=torch.Generator().manual_seed(0))
    assert curve.median.tolist() == [2.0, 6.0]
    assert curve.low[0] == 1.0
    assert curve.high[0] == 4.0
    assert curve.high[1] == 7.0


@pytest.mark.parametrize(
    ("high", "median", "constant", "expected"),
    [
        ([0.1, 0.3, 0.31], [0.1] * 3, [0.0] * 3, 2),
        ([0.9] * 3, [0.6, 0.66, 0.67], [0.6] * 3, 2),  # noise: as good as the mean, within a tenth
        ([0.9, 0.1, 0.1], [0.8, 0.1, 0.1], [0.6] * 3, 0),  # a later good step does not heal an early bad one
        ([0.0] * 3, [0.0] * 3, [0.0] * 3, 3),  # a constant reward, predicted
    ],
)
def test_reward_horizon_by_hand(high, median, constant, expected):
    curve = ErrorCurve(np.array(median), np.array(median), np.array(high))
    assert reward_horizon(curve, np.array(constant), tolerance=0.3) == expected


def make_result(reward=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))):
    """Two segments, of which one ends after a step; the rewards that happened are 5 throughout."""
    alive = np.array([[True, True, False], [True, False, False]])
    result = OpenLoop(
        error=np.array([[0.1, 0.2, 9.0], [0.1, 0.2, 9.0]]),
        persistence=np.ones((2, 3)),
        linear=np.full((2, 3), 0.5),
        mean=5.0 + np.array(reward)[..., None],
        low=np.zeros((2, 3, 1)),
        high=np.zeros((2, 3, 1)),
        nrmse=np.arange(9.0).reshape(3, 3),
        coverage=np.array([0.9, 0.7, 0.0]),
        ended_early=np.array([0.0, 0.1, 0.2]),
        alive=alive,
        episode=np.arange(2),
    )
    segments = Segments(
        observations=np.zeros((2, 4, 1), np.float32),
        actions=np.zeros((2, 3, 1), np.float32),
        rewards=np.full((2, 3), 5.0, np.float32),
        alive=alive,
        episode=np.arange(2),
    )
    return result, segments


def judge(made, *, mean=1.0, scale=8.0, **config):
    return judge_open_loop(
        *made,
        reward=RewardMoments(mean, scale),
        config=AssessmentConfig(bootstrap_draws=20, **config),
        rng=RngStreams(0),
    )


def test_a_report_lists_the_horizons_that_a_segment_reaches():
    report = judge(make_result())
    assert report.steps == (1, 2)
    assert report.segments == (2, 1)
    assert report.error == pytest.approx((0.1, 0.2))
    assert (report.persistence, report.linear) == ((1.0, 1.0), (0.5, 0.5))
    assert (report.nrmse, report.nrmse_persistence) == ((0.0, 1.0), (3.0, 4.0))
    assert report.nrmse_linear == (6.0, 7.0)
    assert report.ended_early == (0.0, 0.1)
    assert report.reward_constant == (0.5, 0.5)  # |5 - 1| / 8
    assert report.trusted_horizon == 1  # the second step covers 0.7 < 0.8
    assert judge(make_result(), trust_coverage=0.6).trusted_horizon == 2
    assert judge(make_result(), trust_coverage=0.6, trust_error=0.15).trusted_horizon == 1  # its error is 0.2


def test_a_wrong_reward_ends_the_trust_in_the_model():
    # Off by 8 in deviations of 8 at the second step, where to say the mean would be off by 4.
    report = judge(make_result([[0.0, 8.0, 0.0]] * 2), trust_coverage=0.6)
    assert report.reward_error == (0.0, 1.0)
    assert (report.observation_horizon, report.reward_horizon, report.trusted_horizon) == (2, 1, 1)
    wrong = judge(make_result([[8.0, 8.0, 0.0]] * 2), trust_coverage=0.6)
    assert (wrong.observation_horizon, wrong.trusted_horizon) == (2, 0)
    lost = judge(make_result([[np.nan] * 3] * 2), trust_coverage=0.6)
    assert lost.trusted_horizon == 0
