from typing import get_args

import pytest

from mbrl.dynamics.assessment.model_warnings import WarningKind, find_warnings, is_disqualifying
from mbrl.dynamics.channel_report import CoarseChannel, ConstantChannel, RareChoice, RewardOutliers
from tests.report.conftest import make_dynamics_report

NAN = float("nan")


def make_report(*, low=0.5, **parts):
    """A sound report with other values in some of its parts."""
    report = make_dynamics_report()
    worst = report.correlations["ens_std"].model_copy(update={"low": low})
    changed = {name: getattr(report, name).model_copy(update=values) for name, values in parts.items()}
    return report.model_copy(update={"correlations": {**report.correlations, "ens_std": worst}, **changed})


def kinds(**changes):
    return [warning.kind for warning in find_warnings(make_report(**changes))]


def text(**changes):
    (warning,) = find_warnings(make_report(**changes))
    return warning.text


OUTLIERS = RewardOutliers(count=3, episode=7, row=11, value=1e12, least=-3.0, largest=2.0)
RESTING = ConstantChannel(dimension=1, mean=0.5, std=1e-6)
STILL = RESTING.model_copy(update={"std": 0.0})
REWARD = {"reward_error": (0.1, 0.2, 0.9), "reward_constant": (0.6, 0.6, 0.6)}
COARSE = CoarseChannel(dimension=0, size=12345.0, change=2e-3, resolution=2.0**-10)


def test_a_sound_fit_has_no_warning():
    assert kinds() == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"open_loop": {"trusted_horizon": 0}}, "horizon"),
        ({"calibration": {"ece": (0.0, 0.0, 0.31)}}, "calibration"),
        ({"low": -0.01}, "correlation"),
        ({"low": NAN}, "correlation"),
        ({"open_loop": {"observation_horizon": 3, "reward_horizon": 2, **REWARD}}, "reward"),
        ({"reward": {"outliers": OUTLIERS}}, "outliers"),
        ({"channels": {"constant": (RESTING,)}}, "constant"),
        ({"channels": {"coarse": (COARSE,)}}, "coarse"),
        ({"channels": {"rare_choices": (RareChoice(name="left", rows=0),)}}, "choices"),
        ({"termination": {"recall": 0.49}}, "termination"),
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
        {"termination": {"recall": 0.5}},
        {"open_loop": {"observation_horizon": 3, "reward_horizon": 3, **REWARD}},
        {"channels": {"constant": (STILL,)}},
        # Intervals of a constant are no intervals: with it the mean would be 0.11.
        {"calibration": {"ece": (0.03, 0.3, 0.0)}, "channels": {"constant": (STILL,)}},
        {"termination": {"recall": 0.1, "is_learned": False}},
    ],
)
def test_a_check_passes_up_to_its_bound(changes):
    assert kinds(**changes) == []


def test_what_forbids_rollouts():
    forbidding = [kind for kind in get_args(WarningKind) if is_disqualifying(kind)]
    assert forbidding == ["horizon", "correlation", "termination"]


def test_a_horizon_of_0_says_why():
    loop = {"trusted_horizon": 0, "high": (0.9, NAN, NAN, NAN), "coverage": (0.42, 0.9, 0.9, 0.9)}
    told = text(
        open_loop=loop,
        one_step={"nrmse_by_dimension": (0.2, 0.7)},
        channels={"names": ("angle", "speed")},
    )
    assert "an error of up to 0.9 standard deviations, most of it in dimension speed" in told
    assert "42 % of states inside the 90 % interval" in told
    assert "nothing changes" not in told
    still = text(open_loop={"trusted_horizon": 0, "persistence": (0.1, 0.1, 0.1, 0.1)})
    assert still.endswith("One step ahead it has no gain on predicting that nothing changes.")


def test_what_is_odd_about_the_log_is_named():
    assert "The reward 1e+12 of episode 7, row 11 and 2 more like it lies 2e+11 times the range" in text(
        reward={"outliers": OUTLIERS}
    )
    names = {"names": ("angle", "speed")}
    assert "hardly vary count as constant: speed (1e-06 around 0.5)" in text(
        channels={**names, "constant": (RESTING,)}
    )
    assert "angle (changes of 0.002 around 1.234e+04, float32 has steps of 0.001)" in text(
        channels={**names, "coarse": (COARSE,)}
    )
    reward = {"observation_horizon": 3, "reward_horizon": 2, **REWARD}
    assert "for 3 steps, the reward for 2 only: its median error is then 0.9" in text(open_loop=reward)


def test_choices_that_nobody_took_are_told_from_those_that_few_did():
    rare = (RareChoice(name="jump", rows=0), RareChoice(name="left", rows=3))
    found = text(channels={"rare_choices": rare})
    assert "no training row took: jump. What the model predicts for them is invented." in found
    assert "few training rows took: left (3)" in found
