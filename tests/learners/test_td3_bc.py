import dataclasses
import math

import pytest
import torch

from mbrl.core.types import SpaceSpec
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.td3_bc import TD3BC, TD3BCConfig
from mbrl.nets.normaliser import Normaliser
from tests.learners.twin import (
    CONTEXT,
    bandit,
    constant_net,
    generator,
    linear_critics,
    transitions,
)


def make(context=CONTEXT, **config):
    learner = TD3BC(TD3BCConfig(**{"hidden": (16,), **config}), context)
    return learner, learner.init(generator())


def gradient_of_the_head(learner, state, batch) -> torch.Tensor:
    (gradient,) = torch.autograd.grad(learner.actor_loss(state, batch), state.actor.net.flat)
    return state.actor.net.layers(gradient)[-1].bias.flatten()


def test_the_actor_loss_by_hand():
    """pi = 0.5 everywhere, logged 0 and 1 (scaled -1 and -0.5), Q_1 = 2 a + 1 = 2, Q_2 far below."""
    learner, state = make(value_coef=2.5)
    constant_net(state.actor.net, math.atanh(0.5))
    linear_critics(state.critic, [2.0, 50.0], [1.0, -90.0])
    batch = dataclasses.replace(transitions(2), action=torch.tensor([[0.0], [1.0]]))
    loss = learner.actor_loss(state, batch)
    assert float(loss.detach()) == pytest.approx((1.5**2 + 1.0**2) / 2 - 2.5 * 2 / 2)


def test_the_scale_of_the_value_is_a_constant_for_the_gradient():
    """With kappa inside of the gradient the value term would have none at all: Q / |Q| = 1."""
    learner, state = make(value_coef=2.5)
    constant_net(state.actor.net, math.atanh(0.5))
    linear_critics(state.critic, [2.0, 50.0], [1.0, -90.0])
    batch = dataclasses.replace(transitions(2), action=torch.tensor([[0.0], [1.0]]))
    slope_of_tanh = 1 - 0.5**2
    expected = (2 * (1.5 + 1.0) / 2 - 2.5 / 2 * 2) * slope_of_tanh
    assert gradient_of_the_head(learner, state, batch).tolist() == pytest.approx([expected], rel=1e-5)


def test_the_scale_is_that_of_absolute_values_and_negative_values_are_climbed_too():
    learner, state = make(value_coef=1.0)
    constant_net(state.actor.net, math.atanh(0.5))
    linear_critics(state.critic, [2.0, 0.0], [-5.0, 0.0])  # Q_1 = -4, |Q_1| = 4
    batch = dataclasses.replace(transitions(2), action=torch.tensor([[3.0], [3.0]]))  # scaled 0.5: no error
    assert float(learner.actor_loss(state, batch).detach()) == pytest.approx(1.0)
    expected = -(1 / 4) * 2 * (1 - 0.5**2)
    assert gradient_of_the_head(learner, state, batch).tolist() == pytest.approx([expected], rel=1e-5)


def test_the_cloning_error_is_averaged_over_dimensions():
    space = SpaceSpec(2, 2, (-1.0, -1.0), (1.0, 1.0))
    learner, state = make(LearnerContext(space, Normaliser.identity(2), 1), value_coef=0.0)
    constant_net(state.actor.net, 0.0, math.atanh(0.5))
    action = torch.tensor([[1.0, 0.5], [0.0, -0.5]])
    batch = dataclasses.replace(transitions(2), action=action, next_action=None, has_next_action=None)
    assert float(learner.actor_loss(state, batch).detach()) == pytest.approx((1 + 0 + 0 + 1) / 4)


def test_rewards_in_other_units_leave_the_actor_loss_as_it_is():
    learner, state = make()
    batch = transitions()
    linear_critics(state.critic, [1.0, 1.0], [3.0, 3.0])
    loss = float(learner.actor_loss(state, batch).detach())
    linear_critics(state.critic, [1000.0, 1.0], [3000.0, 3.0])
    assert float(learner.actor_loss(state, batch).detach()) == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_without_value_it_is_a_clone():
    """Logged actions average 0.5 above the best one, and there it stays."""
    rates = {"actor_learning_rate": 1e-2, "critic_learning_rate": 1e-2}
    learner, state = make(hidden=(32, 32), value_coef=0.0, **rates)
    draws = generator(1)
    for _ in range(300):
        learner.update(state, bandit(64, draws, low=-0.5, high=1.5), draws)
    obs = 1.6 * torch.rand(200, 2, generator=draws) - 0.8
    error = learner.policy(state).act(obs)[:, 0] - 2 - 0.5 * obs[:, 0]
    assert float(error.mean()) == pytest.approx(0.5, abs=0.08)


def test_a_negative_weight_of_the_value_is_refused():
    with pytest.raises(ValueError, match="value_coef"):
        TD3BCConfig(value_coef=-1.0)


def test_it_is_registered():
    assert LEARNERS.get("td3_bc") is TD3BC
