import dataclasses
import math

import pytest
import torch

from mbrl.learners.base import LEARNERS
from mbrl.learners.generative.bfn import BFN, BFNConfig
from mbrl.nets.stack import StackedMLP
from tests.learners.twin import (
    CONTEXT,
    bandit,
    constant_critics,
    generator,
    linear_critics,
    loop,
    transitions,
)

SMALL = {"hidden": (16,), "flow_hidden": (16,), "flow_steps": 4, "critic_layer_norm": False, "discount": 0.9}


def make(seed: int = 0, **config):
    learner = BFN(BFNConfig(**{**SMALL, **config}), CONTEXT)
    return learner, learner.init(generator(seed))


def constant_field(field: StackedMLP, velocity: float) -> None:
    """Makes the field carry noise by `velocity`, whatever the state."""
    with torch.no_grad():
        field.flat.zero_()
        field.layers(field.flat)[-1].bias.fill_(velocity)


def test_the_flow_loss_by_hand():
    """Scaled actions 0 and 1, noise 1 and -0.5: velocities -1 and 1.5 against a field of 0.5."""
    learner, state = make()
    constant_field(state.clone.field, 0.5)
    batch = dataclasses.replace(transitions(2), action=torch.tensor([[2.0], [4.0]]))
    noise = torch.tensor([[1.0], [-0.5]])
    loss = learner.flow_loss(state, batch, noise, torch.tensor([0.3, 0.9]))
    assert float(loss.detach()) == pytest.approx((1.5**2 + 1.0**2) / 2)


def test_the_field_is_asked_at_the_point_and_the_time_between_noise_and_action():
    learner, state = make(flow_hidden=(2,))
    field = state.clone.field
    with torch.no_grad():
        # 10 t + x_t, by two units of SiLU far from 0, where it is linear.
        field.flat.zero_()
        first, last = field.layers(field.flat)
        first.weight[0, 2, 0], first.weight[0, 3, 0], first.bias[0, 0, 0] = 1.0, 10.0, 100.0
        last.weight[0, 0, 0], last.bias[0, 0, 0] = 1.0, -100.0
    batch = dataclasses.replace(transitions(1), action=torch.tensor([[4.0]]))
    loss = learner.flow_loss(state, batch, torch.tensor([[-1.0]]), torch.tensor([0.25]))
    point, velocity = -1 + 0.25 * 2, 2.0  # from -1 to the scaled action 1
    assert float(loss.detach()) == pytest.approx((10 * 0.25 + point - velocity) ** 2, rel=1e-4)


@pytest.mark.parametrize(("pessimism", "expected"), [(0.0, (4 * 0.8, 4 * 0.1)), (1.0, (-2 * 0.1, -2 * 0.1))])
def test_the_target_by_hand_is_the_best_draw_by_joined_target_critics(pessimism, expected):
    """Draws of row 0 at 0.8 and 0.1, of row 1 at 0.1 and -0.9 (clipped to -1 from -9); Q' = 10 a, -2 a."""
    learner, state = make(target_candidates=2, pessimism=pessimism)
    constant_field(state.clone.field, 0.1)
    linear_critics(state.target_critic, [10.0, -2.0], [0.0, 0.0])
    constant_critics(state.critic, [500.0, 500.0])  # the online critics do not count
    batch = dataclasses.replace(
        transitions(3), reward=torch.tensor([1.0, 1.0, 5.0]), terminated=torch.tensor([False, False, True])
    )
    noise = torch.tensor([[[0.7], [0.0], [0.3]], [[0.0], [-9.1], [0.3]]])
    target = learner.critic_target(state, batch, noise)
    assert target.tolist() == pytest.approx([1 + 0.9 * expected[0], 1 + 0.9 * expected[1], 5.0], rel=1e-5)
    assert not target.requires_grad


def test_the_flow_loss_trains_the_field_alone():
    learner, state = make()
    learner.flow_loss(
        state, transitions(), torch.randn(8, 1, generator=generator()), torch.full((8,), 0.5)
    ).backward()
    assert state.clone.field.flat.grad.abs().sum() > 0
    assert state.critic.net.flat.grad is None


def test_every_update_moves_field_critics_and_targets_by_tau():
    learner, state = make(polyak_tau=0.1)
    for step in range(3):
        old, trained = state.target_critic.net.flat.clone(), (state.clone.field, state.critic.net)
        before = [net.flat.detach().clone() for net in trained]
        learner.update(state, transitions(seed=step), generator(step))
        assert not any(torch.equal(a, net.flat) for a, net in zip(before, trained, strict=True))
        expected = 0.9 * old + 0.1 * state.critic.net.flat.detach()
        torch.testing.assert_close(state.target_critic.net.flat, expected)


def test_the_policy_takes_the_candidate_of_the_highest_joined_value_and_is_worth_it():
    learner, state = make(acting_candidates=32, pessimism=1.0)
    constant_field(state.clone.field, 0.0)
    linear_critics(state.critic, [2.0, 3.0], [1.0, 0.0])
    obs = torch.zeros(3, 2)
    points = state.policy.candidate_noise(None, 1)[:, 0, 0].clamp(-1, 1)
    best = float(torch.minimum(2 * points + 1, 3 * points).max())
    policy, value = learner.policy(state), learner.value(state)
    assert policy.act(obs)[:, 0].tolist() == pytest.approx([2 + 2 * float(points.max())] * 3, rel=1e-5)
    assert value.value(obs).tolist() == pytest.approx([best] * 3, rel=1e-5)
    action = torch.tensor([[3.0], [2.0], [0.0]])  # scaled 0.5, 0, -1
    assert value.action_value(obs, action).tolist() == pytest.approx([1.5, 0.0, -3.0], abs=1e-5)
    torch.testing.assert_close(value.action_values(obs, action)[1], torch.tensor([1.5, 0.0, -3.0]))


def test_one_candidate_is_the_clone():
    learner, state = make(acting_candidates=1)
    obs = torch.randn(5, 2, generator=generator(3))
    start = state.policy.candidate_noise(None, 5)[0]
    torch.testing.assert_close(learner.policy(state).act(obs), state.clone.act(obs, start))


@pytest.mark.slow
def test_a_log_of_two_modes_is_cloned_as_two_modes():
    """Actions near 1 (two thirds) and near 3: nobody acts in the middle, nor does the clone."""
    learner, state = make(flow_hidden=(64, 64), flow_learning_rate=3e-3, flow_steps=20)
    draws, obs = generator(1), torch.zeros(256, 2)
    batch = dataclasses.replace(transitions(256), observation=obs)
    for _ in range(800):
        is_low = torch.rand(256, 1, generator=draws) < 2 / 3
        action = torch.where(is_low, 1.0, 3.0) + 0.1 * torch.randn(256, 1, generator=draws)
        noise, time = torch.randn(256, 1, generator=draws), torch.rand(256, generator=draws)
        loss = learner.flow_loss(state, dataclasses.replace(batch, action=action), noise, time)
        state.flow_optimiser.descend(loss)
    found = state.clone.act(torch.zeros(4000, 2), torch.randn(4000, 1, generator=draws))[:, 0]
    low, high = found[found < 2], found[found >= 2]
    assert len(low) / 4000 == pytest.approx(2 / 3, abs=0.06)
    assert float(low.mean()) == pytest.approx(1.0, abs=0.12)
    assert float(high.mean()) == pytest.approx(3.0, abs=0.12)
    assert float(low.std()) < 0.25
    assert float(((found > 1.5) & (found < 2.5)).float().mean()) < 0.06


@pytest.mark.slow
@pytest.mark.parametrize(("terminated", "expected"), [(False, 1 / (1 - 0.8)), (True, 1.0)])
def test_reward_one_for_ever_is_worth_the_geometric_sum_and_one_step_is_worth_one(terminated, expected):
    learner, state = make(hidden=(8,), discount=0.8, critic_learning_rate=0.05, polyak_tau=0.9)
    draws = generator(1)
    for _ in range(80):
        learner.update(state, loop(16, draws, terminated=terminated), draws)
    assert float(learner.value(state).value(torch.zeros(1, 2))) == pytest.approx(expected, rel=0.06)


@pytest.mark.slow
def test_the_best_logged_action_of_a_bandit_is_chosen():
    """Logged actions lie 0.3 to 1.5 above the best one: the policy goes to the lower edge, not beyond it."""
    learner, state = make(
        hidden=(32, 32), flow_hidden=(32, 32), flow_learning_rate=3e-3, critic_learning_rate=3e-3
    )
    draws = generator(1)
    for _ in range(300):
        learner.update(state, bandit(64, draws, low=0.3, high=1.5), draws)
    obs = 1.6 * torch.rand(200, 2, generator=draws) - 0.8
    error = learner.policy(state).act(obs)[:, 0] - 2 - 0.5 * obs[:, 0]
    assert float(error.mean()) < 0.6  # a clone of the log: 0.9
    assert float(error.mean()) > 0.1
    assert math.isfinite(float(error.min()))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"flow_steps": 0}, "flow_steps"),
        ({"target_candidates": 0}, "target_candidates"),
        ({"pessimism": -0.1}, "pessimism"),
        ({"candidates": 4}, "candidates"),
    ],
)
def test_unknown_keys_and_bad_values_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        BFNConfig(**bad)


def test_it_is_registered():
    assert LEARNERS.get("bfn") is BFN
