import dataclasses
import math

import pytest
import torch

from mbrl.algorithms.base import RECIPES
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.uncertainty.measures import max_pair
from tests.algorithms.toy import (
    LEARNER,
    HandModel,
    hand_dynamics,
    make_config,
    make_context,
    make_training,
    refresh,
)
from tests.run.toy import make_dataset, transitions

THRESHOLD = 0.4


def disagreement(action):
    """`max_pair` of the hand model: members -1 and 1 differ by 2 sum|a| / 10 in each of 3 dimensions."""
    return 3**0.5 * 2 * action.abs().sum(-1) / 10


@pytest.fixture
def known(fitted):
    return dataclasses.replace(hand_dynamics(fitted), thresholds={"max_pair": {0.95: 0.1, 1.0: THRESHOLD}})


def morel(dynamics, rewards=None, **changes):
    """A MOReL training whose context knows the episodes of the toy."""
    data = transitions() if rewards is None else dataclasses.replace(transitions(), reward=rewards)
    episode = torch.tensor(make_dataset().transitions().episode)
    context = make_context(dynamics, transitions=data, episode=episode)
    return RECIPES.get("morel").build(make_config("morel", **changes), context)


def imagined(training, count=2000):
    refresh(training)
    return training.source.sample(count, RngStreams(0).at("batch"))


@pytest.mark.parametrize("divisor", [1.0, 2.0])
def test_a_step_of_more_disagreement_than_the_data_show_halts_and_ends(known, divisor):
    rows = imagined(morel(known, rollout={"truncation_divisor": divisor, "halt_reward": -50.0}))
    assert rows.from_model.all()
    halted = disagreement(rows.action) > THRESHOLD / divisor
    assert 0.02 < float(halted.double().mean()) < 0.98
    assert torch.equal(rows.terminated, halted)
    assert (rows.reward[halted] == -50.0).all()
    torch.testing.assert_close(rows.reward[~halted], rows.observation[~halted, 0])  # no penalty besides


def test_members_that_agree_never_halt(known):
    class Agreement(HandModel):
        def predict(self, obs, action):
            return super().predict(obs, torch.zeros_like(action))

    generator = RngStreams(0).at("rows")
    obs, action = torch.randn(50, 3, generator=generator), torch.randn(50, 2, generator=generator)
    assert (max_pair(Agreement().predict(obs, action)) == 0).all()
    sure = dataclasses.replace(known, model=Agreement(), thresholds={"max_pair": {0.95: 0.0, 1.0: 0.0}})
    assert not imagined(morel(sure)).terminated.any()
    posterior = HandModel().predict(obs, action)
    torch.testing.assert_close(max_pair(posterior), disagreement(action))


@pytest.mark.parametrize(
    ("low", "high", "discount", "cost"),
    [(-2.0, -0.5, 0.9, -20.0), (-2.0, 3.0, 0.99, -200.0), (0.5, 1.0, 0.9, 0.0)],
)
def test_halting_never_pays_whatever_the_sign_of_the_rewards(known, low, high, discount, cost):
    rewards = torch.linspace(low, high, len(transitions()))
    training = morel(known, rewards, learner={**LEARNER, "discount": discount})
    rows = imagined(training)
    assert rows.terminated.any()
    torch.testing.assert_close(
        rows.reward[rows.terminated], torch.full_like(rows.reward[rows.terminated], cost)
    )
    # No sequence of logged rewards, ended or not, is worth less.
    assert cost <= min(low, low / (1 - discount)) + 1e-9
    assert training.value_bounds[0] == pytest.approx(min(cost, low))


def test_rollouts_start_where_episodes_start(known):
    training = morel(known, rollout={"horizon": 1, "starts": 300})
    starts = imagined(training).observation
    first = torch.tensor([episode.observations[0].tolist() for episode in make_dataset().episodes])
    assert {tuple(row) for row in starts.tolist()} == {tuple(row) for row in first.tolist()}


def test_where_nobody_noted_the_episodes_initial_states_are_refused(known):
    with pytest.raises(ConfigError, match=r"start_states=initial.*Remedy: use start_states=any"):
        make_training(known, "morel")
    refresh(make_training(known, "morel", rollout={"start_states": "any"}))


def test_the_pessimistic_mdp_is_long_and_holds_no_logged_rows():
    config = make_config("morel", rollout={"starts": 40, "horizon": 200})
    rollout = config.rollout
    assert (rollout.horizon, rollout.start_states, rollout.flagged) == (200, "initial", "halt")
    assert (rollout.truncation_quantile, rollout.truncation_divisor, rollout.halt_reward) == (1.0, 1.0, None)
    assert not rollout.respect_trusted_horizon
    assert (config.penalty.measure, config.penalty.coef, config.penalty.units) == ("max_pair", 0.0, "raw")
    assert config.real_ratio == 0


@pytest.mark.parametrize("rollout", [{"flagged": "keep"}, {"truncation_quantile": None}])
def test_morel_without_a_halt_is_refused(rollout):
    with pytest.raises(ValueError, match=r"MOReL halts in the unknown region"):
        make_config("morel", rollout=rollout)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_the_divisor_is_positive_and_finite(bad):
    with pytest.raises(ValueError, match="truncation_divisor"):
        make_config("morel", rollout={"truncation_divisor": bad})


@pytest.mark.parametrize("outlier", [-100.0, -1e12])
def test_one_wrong_reward_does_not_count_for_ever(known, outlier):
    """Among rewards of 1, or about 1, the cost of a halt is that of the others: 0."""
    for rewards in (torch.ones(len(transitions())), torch.linspace(0.5, 1.5, len(transitions()))):
        rewards[7] = outlier
        rows = imagined(morel(known, rewards))
        assert rows.terminated.any()
        halted = rows.reward[rows.terminated]
        assert (halted <= 0).all()
        assert (
            float(halted.min()) >= -100 * 5
        )  # the fence of rewards that are one wide, and never the outlier


def test_a_rare_penalty_that_is_no_outlier_counts_for_ever(known):
    rewards = torch.ones(len(transitions()))
    rewards[::50] = -100.0  # a fall in one row of fifty
    rows = imagined(morel(known, rewards))
    assert (rows.reward[rows.terminated] == -10_000.0).all()
