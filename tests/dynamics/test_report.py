import json

import numpy as np
import pytest

from mbrl.dynamics.report import DynamicsReport, TerminationReport, to_floats, to_integers
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
