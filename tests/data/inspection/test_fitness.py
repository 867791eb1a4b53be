import dataclasses
import re
from typing import Any

import pytest

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.fitness import fit_findings
from mbrl.data.inspection.report import inspect_dataset
from mbrl.data.splits import DEFAULT_FRACTION, DEFAULT_GAP
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.uncertainty.held_out import held_out_measures
from tests.data.logs import make_dataset, make_episode

SMALL: dict[str, Any] = {
    "members": 2,
    "elites": 1,
    "hidden": [8],
    "weight_decay": None,
    "max_updates": 4,
    "min_epoch_updates": 1,
    "max_epoch_updates": 2,
    "termination": {"hidden": [8], "max_updates": 4},
    "assessment": {"segments": 5, "particles": 4, "bootstrap_draws": 10},
}


def fit(data: Dataset, **changes: Any) -> None:
    config = DynamicsConfig.model_validate(SMALL | changes)
    fit_dynamics(data, config, RngStreams(0), measures=held_out_measures)


def bandit(episodes: int, *, known: bool = True) -> Dataset:
    made = tuple(
        make_episode(k, 1, terminated=True, is_final_observation_known=known, reward=float(k % 7))
        for k in range(episodes)
    )
    return dataclasses.replace(make_dataset(), episodes=made)


def lone(steps: int) -> Dataset:
    return dataclasses.replace(make_dataset(), episodes=(make_episode(0, steps),))


def test_the_defaults_are_those_of_a_fit():
    config = DynamicsConfig()
    assert (config.holdout_fraction, config.split_gap) == (DEFAULT_FRACTION, DEFAULT_GAP)


def test_one_short_episode_is_foretold_with_the_gap_that_helps():
    data = lone(30)
    report = inspect_dataset(data)
    assert not report.may_train
    (finding,) = (f for f in report.findings if f.severity == "error")
    assert finding.text == (
        "Nothing can be held out: one episode of 30 steps cannot be split with a gap of 25."
    )
    assert "--set dynamics.assessment.horizon=9" in finding.remedy
    with pytest.raises(DataError, match="gap of 25") as caught:
        fit(data)
    assert "--set dynamics.assessment.horizon=9" in str(caught.value)
    fit(data, assessment={**SMALL["assessment"], "horizon": 9})  # what the remedy says really helps


@pytest.mark.parametrize("steps", [5, 8, 13, 20, 26])
def test_the_gap_that_a_refusal_names_is_one_that_a_fit_takes(steps: int):
    """`horizon=5, say` was no help to one episode of eight steps."""
    with pytest.raises(DataError, match=r"cannot be split") as caught:
        fit(lone(steps))
    named = re.search(r"horizon=(\d+)", str(caught.value))
    if named is None:
        assert steps < 10  # a fifth of them are too few to be judged on
        return
    fit(lone(steps), assessment={**SMALL["assessment"], "horizon": int(named[1])})


def test_two_steps_are_too_few_whatever_the_gap():
    (finding,) = (f for f in fit_findings(lone(2)) if f.severity == "error")
    assert finding.remedy == "Log more data."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bandit(30, known=False), "no transition has a known successor"),
        (bandit(4), "1 held-out steps have a known successor"),
    ],
)
def test_logs_that_no_model_can_be_fitted_to(data: Dataset, words: str):
    found = [finding for finding in fit_findings(data) if words in finding.text]
    assert [finding.severity for finding in found] == ["warning"]  # model-free learners need no successors
    assert found[0].text.startswith("No dynamics model can be fitted")
    with pytest.raises(DataError, match=words) as caught:
        fit(data)
    assert caught.value.remedy == found[0].remedy


def test_two_hundred_one_step_episodes_that_all_terminate_can_be_fitted():
    data = bandit(200)
    assert all(finding.severity != "error" for finding in fit_findings(data))
    fit(data)


def test_equal_returns_are_foretold_to_those_who_scale_by_them():
    same = dataclasses.replace(make_dataset(), episodes=tuple(make_episode(0, 40) for _ in range(12)))
    (finding,) = fit_findings(same)
    assert "reward_transform=return_range" in finding.text
    assert "algorithm.reward_transform=none" in finding.remedy


def small_log(episodes: int, steps: int, ends: int, *, known: bool) -> Dataset:
    made = []
    for k in range(episodes):
        is_terminated = (k + ends) % 3 != 0
        length = 1 + (k * 7) % steps if ends == 2 else steps
        is_known = known or not is_terminated
        made.append(
            make_episode(
                k, length, terminated=is_terminated, is_final_observation_known=is_known, reward=float(k)
            )
        )
    return dataclasses.replace(make_dataset(), episodes=tuple(made))


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("ends", [0, 1, 2])
@pytest.mark.parametrize(
    ("episodes", "steps"), [(1, 3), (1, 60), (2, 1), (2, 40), (3, 2), (9, 1), (9, 5), (12, 1), (20, 3)]
)
def test_a_fit_refuses_what_was_foretold_and_nothing_else(episodes: int, steps: int, ends: int, known: bool):
    data = small_log(episodes, steps, ends, known=known)
    foretold = [finding.text for finding in fit_findings(data) if "return_range" not in finding.text]
    if foretold:
        with pytest.raises(DataError) as caught:
            fit(data)
        assert caught.value.problem in foretold[0]
    else:
        fit(data)


def test_the_checks_are_those_of_the_fit(monkeypatch: pytest.MonkeyPatch):
    """There is one copy: a fit that skipped the check would not refuse."""
    monkeypatch.setattr("mbrl.dynamics.fit.check_fit_parts", lambda split: None)
    DynamicsFit(bandit(12), DynamicsConfig.model_validate(SMALL), RngStreams(0))
