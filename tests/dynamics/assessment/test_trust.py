import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.dynamics.assessment.open_loop import OpenLoop
from mbrl.dynamics.assessment.trust import ErrorCurve, error_curve, judge_open_loop, trusted_horizon
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


def test_a_report_lists_the_horizons_that_a_segment_reaches():
    error = np.array([[0.1, 0.2, 9.0], [0.1, 0.2, 9.0]])
    alive = np.array([[True, True, False], [True, False, False]])
    result = OpenLoop(
        error=error,
        persistence=np.ones((2, 3)),
        linear=np.full((2, 3), 0.5),
        nrmse=np.arange(9.0).reshape(3, 3),
        coverage=np.array([0.9, 0.7, 0.0]),
        ended_early=np.array([0.0, 0.1, 0.2]),
        alive=alive,
        episode=np.arange(2),
    )
    report = judge_open_loop(result, AssessmentConfig(bootstrap_draws=20), RngStreams(0))
    assert report.steps == (1, 2)
    assert report.segments == (2, 1)
    assert report.error == pytest.approx((0.1, 0.2))
    assert (report.persistence, report.linear) == ((1.0, 1.0), (0.5, 0.5))
    assert (report.nrmse, report.nrmse_persistence, report.nrmse_linear) == (
        (0.0, 1.0),
        (3.0, 4.0),
        (6.0, 7.0),
    )
    assert report.ended_early == (0.0, 0.1)
    assert report.trusted_horizon == 1  # the second step covers 0.7 < 0.8
    lenient = AssessmentConfig(bootstrap_draws=20, trust_coverage=0.6, trust_error=0.15)
    assert judge_open_loop(result, lenient, RngStreams(0)).trusted_horizon == 1  # its error is 0.2 > 0.15
    lenient = AssessmentConfig(bootstrap_draws=20, trust_coverage=0.6)
    assert judge_open_loop(result, lenient, RngStreams(0)).trusted_horizon == 2
