from typing import get_args

import pytest

from mbrl.dynamics.doubts import Rule, doubts, is_disqualifying
from tests.report.conftest import make_dynamics_report

NAN = float("nan")


def rules(calibration=None, open_loop=None, low=0.5, head=None):
    report = make_dynamics_report()
    worst = report.correlations["ens_std"].model_copy(update={"low": low})
    found = doubts(
        report.calibration.model_copy(update=calibration or {}),
        report.open_loop.model_copy(update=open_loop or {}),
        {**report.correlations, "ens_std": worst},
        report.termination.model_copy(update=head or {}),
    )
    return [doubt.rule for doubt in found]


def test_a_sound_fit_breaks_no_rule():
    assert rules() == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"open_loop": {"trusted_horizon": 0}}, "horizon"),
        ({"calibration": {"ece": (0.0, 0.0, 0.31)}}, "calibration"),
        ({"low": -0.01}, "correlation"),
        ({"low": NAN}, "correlation"),
        ({"head": {"recall": 0.49}}, "termination"),
    ],
)
def test_each_rule_fires_alone(changes, rule):
    assert rules(**changes) == [rule]


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
def test_a_rule_holds_up_to_its_bound(changes):
    assert rules(**changes) == []


def test_only_calibration_does_not_forbid_rollouts():
    assert [rule for rule in get_args(Rule) if not is_disqualifying(rule)] == ["calibration"]
