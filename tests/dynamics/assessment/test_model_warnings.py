from typing import get_args

import pytest

from mbrl.dynamics.assessment.model_warnings import WarningKind, find_warnings, is_disqualifying
from tests.report.conftest import make_dynamics_report

NAN = float("nan")


def kinds(calibration=None, open_loop=None, low=0.5, head=None):
    report = make_dynamics_report()
    worst = report.correlations["ens_std"].model_copy(update={"low": low})
    warnings = find_warnings(
        report.calibration.model_copy(update=calibration or {}),
        report.open_loop.model_copy(update=open_loop or {}),
        {**report.correlations, "ens_std": worst},
        report.termination.model_copy(update=head or {}),
    )
    return [warning.kind for warning in warnings]


def test_a_sound_fit_has_no_warning():
    assert kinds() == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"open_loop": {"trusted_horizon": 0}}, "horizon"),
        ({"calibration": {"ece": (0.0, 0.0, 0.31)}}, "calibration"),
        ({"low": -0.01}, "correlation"),
        ({"low": NAN}, "correlation"),
        ({"head": {"recall": 0.49}}, "termination"),
    ],
)
def test_each_check_fails_alone(changes, kind):
    assert kinds(**changes) == [kind]


@pytest.mark.parametrize(
    "changes",
    [
        {"open_loop": {"trusted_horizon": 1}},
        {"calibration": {"ece": (0.0, 0.0, 0.3)}},
        {"low": 0.01},
        {"head": {"recall": 0.5}},
        {"head": {"recall": 0.1, "is_learned": False}},
    ],
)
def test_a_check_passes_up_to_its_bound(changes):
    assert kinds(**changes) == []


def test_only_calibration_does_not_forbid_rollouts():
    assert [kind for kind in get_args(WarningKind) if not is_disqualifying(kind)] == ["calibration"]
