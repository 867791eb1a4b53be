import json

import numpy as np
import pytest

from mbrl.dynamics.report import DynamicsReport, TerminationReport, TrainingReport, to_floats, to_integers
from tests.report.conftest import make_dynamics_report


def test_arrays_become_python_numbers():
    assert to_floats(np.array([0.5, 2], np.float32)) == (0.5, 2.0)
    assert to_integers(np.array([3, 4])) == (3, 4)
    assert json.dumps([*to_floats(np.ones(1, np.float32)), *to_integers(np.ones(1, np.int64))]) == "[1.0, 1]"


def test_a_report_survives_json():
    text = json.dumps(make_dynamics_report().model_dump(mode="json"))
    assert "NaN" in text  # figures that do not exist stay so
    assert json.dumps(DynamicsReport.model_validate(json.loads(text)).model_dump(mode="json")) == text


def test_coverage_is_that_of_the_level_and_the_horizon_that_of_the_open_loop():
    report = make_dynamics_report(horizon=2)
    assert report.calibration.coverage(0.9) == report.calibration.coverage_after[17]
    assert report.trusted_horizon == report.open_loop.trusted_horizon == 2
    with pytest.raises(ValueError, match="not in tuple"):
        report.calibration.coverage(0.91)


def test_false_ends_are_warned_of_only_where_they_look_good():
    report = TerminationReport(
        is_learned=True,
        train_terminated=9,
        rows=100,
        terminated=1,
        logged_rate=0.01,
        logged_rate_high=0.02,
        predicted_rate=0.01,
        precision=1.0,
        recall=1.0,
        brier=0.0,
        brier_constant=0.01,
    )
    assert "rewards are negative" in (report.warn_of_imagined_rate(0.05, mean_reward=-1.0) or "")
    assert report.warn_of_imagined_rate(0.05, mean_reward=1.0) is None
    assert report.warn_of_imagined_rate(0.015, mean_reward=-1.0) is None


def _fit_of(errors: tuple[float, ...], *, max_updates: int) -> TrainingReport:
    return TrainingReport(
        train_rows=10,
        holdout_rows=5,
        train_episodes=2,
        holdout_episodes=1,
        is_split_by_block=False,
        updates=tuple(100 * (k + 1) for k in range(len(errors))),
        member_errors=(errors, tuple(10 * error for error in errors)),
        member_best=(min(errors, default=1.0), 10 * min(errors, default=1.0)),
        elites=(0,),
        max_updates=max_updates,
    )


def test_an_error_had_settled_if_patience_ended_the_fit_or_its_last_fifth_gained_little() -> None:
    falling = (1.0, 0.8, 0.6, 0.4, 0.2)
    capped = _fit_of(falling, max_updates=500)
    assert capped.late_gain == pytest.approx(0.5)
    assert not capped.settled
    assert "fell by 50%" in capped.settled_words
    assert "raise max_updates" in capped.settled_words
    assert _fit_of(falling, max_updates=900).settled  # it ended by itself
    assert _fit_of((1.0, 0.5, 0.4, 0.4, 0.39), max_updates=500).settled
    assert not _fit_of((), max_updates=500).settled


def test_a_fit_of_the_default_length_may_gain_more_as_its_step_size_falls() -> None:
    # 5,000 updates are the default: fifty epochs of `_fit_of`, of which the last ten are the last fifth.
    for last, is_settled in ((0.80, True), (0.70, False)):
        fit = _fit_of((1.0,) * 40 + (last,) * 10, max_updates=5000)
        assert fit.late_gain == pytest.approx(1.0 - last)
        assert fit.settled == is_settled
    assert not _fit_of((1.0,) * 32 + (0.8,) * 8, max_updates=4000).settled


def test_an_error_that_nobody_would_notice_has_settled() -> None:
    assert _fit_of((1e-2, 1e-3, 9e-4, 5e-4, 0.99e-4), max_updates=500).settled
    assert not _fit_of((1e-2, 1e-3, 9e-4, 5e-4, 1.01e-4), max_updates=500).settled
