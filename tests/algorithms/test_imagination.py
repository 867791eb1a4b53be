import dataclasses
import math

import pytest
import torch

from mbrl.algorithms.imagination import choose_termination, imagined_value_bounds, limit_horizon
from mbrl.algorithms.penalty import PenaltyConfig, UncertaintyRule
from mbrl.core.errors import ConfigError
from mbrl.envs.specs import TaskSpec, TerminationRule
from mbrl.rollouts.box import Box
from mbrl.rollouts.config import RolloutConfig
from tests.algorithms.toy import (
    make_context,
    make_imagination,
    with_trusted_horizon,
)
from tests.run.toy import SPACE, transitions


def task(**rule) -> TaskSpec:
    return TaskSpec(
        name="walled",
        obs_dim=SPACE.obs_dim,
        act_dim=SPACE.act_dim,
        act_low=SPACE.act_low,
        act_high=SPACE.act_high,
        termination=TerminationRule(**rule) if rule else None,
    )


# --- horizon ---


@pytest.mark.parametrize(
    ("trusted", "respects", "expected"), [(2, True, 2), (9, True, 5), (2, False, 5), (0, False, 5)]
)
def test_limit_horizon(toy, trusted, respects, expected):
    rollout = RolloutConfig(horizon=5, starts=77, respect_trusted_horizon=respects)
    limited = limit_horizon(rollout, with_trusted_horizon(toy, trusted))
    assert limited == rollout.model_copy(update={"horizon": expected})


# --- termination ---


def test_the_learned_head_is_the_one_of_the_fit(fitted):
    assert choose_termination("learned", make_context(fitted), fitted) is fitted.termination


def test_never_and_the_known_rule_answer_for_themselves(fitted):
    obs = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [math.nan, 0.0, 0.0]])
    action = torch.zeros(3, 2)
    context = make_context(fitted, task=task(bounds={0: (-2.0, 2.0)}))
    assert choose_termination("never", context, fitted)(obs, action, obs).tolist() == [0, 0, 0]
    assert choose_termination("task", context, fitted)(obs, action, obs).tolist() == [0, 1, 1]


def test_a_known_rule_that_does_not_exist_is_refused(fitted):
    with pytest.raises(ConfigError, match=r"no task is known.*termination=learned"):
        choose_termination("task", make_context(fitted), fitted)
    with pytest.raises(ConfigError, match=r"the task 'walled' declares none.*termination=learned"):
        choose_termination("task", make_context(fitted, task=task()), fitted)


# --- ranges ---


def test_the_box_spans_observations_successors_and_rewards():
    logged = transitions()
    far = logged.next_observation.clone()
    far[3, 1] = 77.0
    box = Box.around(dataclasses.replace(logged, next_observation=far))
    assert float(box.obs_high[1]) == 77.0
    assert torch.equal(box.obs_low, torch.minimum(logged.observation, far).amin(0))
    assert (float(box.reward_low), float(box.reward_high)) == (
        float(logged.reward.min()),
        float(logged.reward.max()),
    )


def test_rollouts_are_clipped_to_the_box_only_on_request(toy):
    assert make_imagination(toy).box is None
    box = make_imagination(toy, rollout={"clip_to_data": True}).box
    assert torch.equal(box.obs_high, Box.around(transitions()).obs_high)


def test_without_a_way_to_halt_the_halt_reward_does_not_count(toy):
    logged = transitions()
    rollout = RolloutConfig(flagged="halt", halt_reward=-1e5, truncation_quantile=None)
    rule = UncertaintyRule.make(rollout, PenaltyConfig(coef=0.0), toy, transitions=logged)
    bounds = imagined_value_bounds(logged, rule, rollout=rollout, discount=0.9)
    assert bounds == pytest.approx((10 * float(logged.reward.min()), float(logged.reward.max())))


def test_auto_takes_a_rule_where_one_is_known(fitted):
    bare = make_context(fitted)
    assert choose_termination("auto", bare, fitted) is fitted.termination

    def rule(obs, action, next_obs):
        del obs, action
        return torch.ones(len(next_obs))

    carried = dataclasses.replace(bare, log_termination=rule)
    assert choose_termination("auto", carried, fitted) is rule
    assert choose_termination("task", carried, fitted) is rule
    assert choose_termination("learned", carried, fitted) is fitted.termination
