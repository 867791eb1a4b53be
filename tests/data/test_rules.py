"""Rules that a log carries, in imagination."""

import dataclasses

import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.data.info import DatasetInfo
from mbrl.data.rules import LoggedReward, LoggedTermination, logged_reward, logged_termination


def ends(rule: str, next_obs: list[list[float]]) -> list[float]:
    after = torch.tensor(next_obs)
    obs, action = torch.tensor([[0.1, 0.2]]).expand(len(after), 2), torch.full((len(after), 1), 0.5)
    return LoggedTermination(rule, ("tilt", "speed"), ("torque",))(obs, action, after).tolist()


def test_a_condition_reads_the_step_and_what_follows_it():
    states = [[0.0, 0.0], [1.6, 0.0], [0.0, 30.0], [-1.6, 0.0]]
    assert ends("abs(next_tilt) > 1.5 or next_speed > 20", states) == [0.0, 1.0, 1.0, 1.0]
    assert ends("tilt > 0.05 and torque > 0.4", states) == [1.0] * 4
    assert ends("speed > 0.3", states) == [0.0] * 4


def test_where_nothing_is_known_it_ends():
    assert ends("next_tilt > 1", [[float("nan"), 0.0], [0.0, float("inf")], [0.0, 0.0]]) == [1.0, 1.0, 0.0]


def test_a_log_carries_its_rule_only_with_the_names_that_it_reads():
    info = DatasetInfo("arm", obs_names=("tilt",), act_names=("u",), termination_rule="next_tilt > 1")
    rule = logged_termination(info)
    assert rule is not None
    assert rule(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([[0.0], [2.0]])).tolist() == [0.0, 1.0]
    assert logged_termination(dataclasses.replace(info, termination_rule=None)) is None
    assert logged_termination(dataclasses.replace(info, obs_names=None)) is None


def test_other_names_are_refused_with_the_nearest():
    info = DatasetInfo("arm", obs_names=("tilt",), act_names=("u",), termination_rule="tlt > 1")
    with pytest.raises(DataError, match=r"termination_rule.*Did you mean 'tilt'"):
        logged_termination(info)


def test_a_reward_reads_the_step_and_what_follows_it():
    rule = LoggedReward("-next_tilt ** 2 - 0.1 * torque ** 2 + speed", ("tilt", "speed"), ("torque",))
    obs, action = torch.tensor([[9.0, 1.0], [9.0, 2.0]]), torch.tensor([[2.0], [0.0]])
    found = rule(obs, action, torch.tensor([[3.0, 9.0], [float("nan"), 9.0]]))
    assert found.dtype == torch.float32
    assert float(found[0]) == pytest.approx(-9.0 - 0.4 + 1.0)
    assert not bool(found[1].isfinite())


def test_a_log_carries_its_reward_only_with_the_names_that_it_reads():
    info = DatasetInfo("arm", obs_names=("tilt",), act_names=("u",), reward_rule="-tilt ** 2")
    rule = logged_reward(info)
    assert rule is not None
    assert rule(torch.tensor([[2.0]]), torch.zeros(1, 1), torch.zeros(1, 1)).tolist() == [-4.0]
    assert logged_reward(dataclasses.replace(info, reward_rule=None)) is None
    assert logged_reward(dataclasses.replace(info, obs_names=None)) is None
    with pytest.raises(DataError, match=r"reward_rule.*Did you mean 'tilt'.*--reward"):
        logged_reward(dataclasses.replace(info, reward_rule="-tlt"))
