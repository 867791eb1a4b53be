import dataclasses
import math

import pytest
import torch

from mbrl.core.types import TransitionBatch
from mbrl.learners.awac import AWAC, AWACConfig
from mbrl.learners.base import LEARNERS
from tests.learners.twin import CONTEXT, generator, loop, transitions

SMALL = {"hidden": (16,), "discount": 0.9}


def make(seed: int = 0, **config):
    learner = AWAC(AWACConfig(**{**SMALL, **config}), CONTEXT)
    return learner, learner.init(generator(seed))


def linear_critics(critic, slopes: list[float]) -> None:
    """Critic i answers `slopes[i] * a` (scaled) at every state."""
    with torch.no_grad():
        critic.net.flat.zero_()
        first, last = critic.net.layers(critic.net.flat)
        first.weight[:, 2, 0], first.weight[:, 2, 1] = 1.0, -1.0
        for i, slope in enumerate(slopes):
            last.weight[i, :2, 0] = torch.tensor([slope, -slope])


def constant_policy(actor, mean: float, log_std: float) -> None:
    with torch.no_grad():
        actor.net.flat.zero_()
        actor.net.layers(actor.net.flat)[-1].bias.fill_(math.atanh(mean))
        actor.log_std.fill_(log_std)


def test_the_target_is_the_least_target_critic_at_a_clipped_draw_without_entropy():
    learner, state = make()
    linear_critics(state.target_critic, [1.0, 3.0])
    linear_critics(state.critic, [100.0, 100.0])
    constant_policy(state.actor, 0.2, math.log(0.5))
    batch = dataclasses.replace(
        transitions(3), reward=torch.tensor([1.0, 2.0, 3.0]), terminated=torch.tensor([False, False, True])
    )
    target = learner.critic_target(state, batch, torch.tensor([[-1.0], [10.0], [0.0]]))
    # 0.2 - 0.5 = -0.3 and 0.2 + 5, clipped to 1
    assert target.tolist() == pytest.approx([1 + 0.9 * 3 * -0.3, 2 + 0.9 * 1.0, 3.0], rel=1e-5)
    assert not target.requires_grad


def test_the_advantage_is_the_least_critic_here_minus_its_mean_over_draws_of_the_policy():
    learner, state = make(value_samples=2)
    linear_critics(state.critic, [1.0, 3.0])
    linear_critics(state.target_critic, [100.0, 100.0])
    constant_policy(state.actor, 0.0, math.log(0.5))
    noise = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 2, 1)
    advantage = learner.advantage(state, torch.zeros(2, 2), torch.tensor([[0.5], [-0.5]]), noise=noise)
    value = (1 * 0.5 + 3 * -0.5) / 2  # the least critic at 0.5 and at -0.5
    assert advantage.tolist() == pytest.approx([0.5 - value, -1.5 - value])
    assert not advantage.requires_grad


@pytest.mark.parametrize("weights", ["exponential", "softmax"])
def test_the_actor_descends_the_weighted_negative_log_likelihood(weights):
    batch = transitions()
    learner, state = make(weights=weights, inverse_temperature=0.5, max_weight=1.2)
    advantage = torch.linspace(-2, 2, 8)
    log_prob = state.actor.log_prob(batch.observation, batch.action).detach()
    metrics = learner._update_policy(state, batch, advantage)
    raw = [math.exp(0.5 * a) for a in advantage.tolist()]
    expected = [min(w, 1.2) if weights == "exponential" else 8 * w / sum(raw) for w in raw]
    loss = -sum(w * float(p) for w, p in zip(expected, log_prob, strict=True)) / 8
    assert float(metrics["policy/loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(metrics["policy/weight_max"]) == pytest.approx(max(expected), rel=1e-5)


def test_the_actor_sees_the_critics_after_their_step():
    batch = transitions()
    learner, state = make(critic_learning_rate=0.05)
    noise = torch.randn(2, 8, 1, generator=generator(3))
    twin = learner.init(generator(0))
    metrics = learner.update(state, batch, generator(3))
    scaled = twin.critic.scale(batch.action)
    old = learner.advantage(twin, batch.observation, scaled, noise=noise[1:])
    with torch.no_grad():
        twin.critic.net.flat.copy_(state.critic.net.flat)
    new = learner.advantage(twin, batch.observation, scaled, noise=noise[1:])
    assert float((new - old).abs().max()) > 1e-3
    weight = (3.0 * new).exp().clamp_max(100.0)
    expected = -(weight * twin.actor.log_prob(batch.observation, batch.action)).mean()
    assert float(metrics["policy/loss"]) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_targets_move_by_tau_and_all_networks_learn():
    learner, state = make(polyak_tau=0.25)
    before = state.target_critic.net.flat.clone()
    actor, log_std = state.actor.net.flat.detach().clone(), state.actor.log_std.detach().clone()
    learner.update(state, transitions(), generator())
    torch.testing.assert_close(
        state.target_critic.net.flat, 0.75 * before + 0.25 * state.critic.net.flat.detach()
    )
    assert not torch.equal(state.actor.net.flat.detach(), actor)
    assert not torch.equal(state.actor.log_std.detach(), log_std)


def test_values_are_the_least_critic_at_the_mean_action():
    learner, state = make()
    linear_critics(state.critic, [1.0, 3.0])
    constant_policy(state.actor, -0.5, 0.0)
    value, obs = learner.value(state), torch.zeros(2, 2)
    assert value.value(obs).tolist() == pytest.approx([-1.5, -1.5])
    assert value.action_value(obs, torch.tensor([[4.0], [2.0]])).tolist() == pytest.approx([1.0, 0.0])


def test_in_a_bandit_the_better_of_two_logged_actions_is_chosen():
    """80 % of the log is the worse action near 1, reward 0; the better one near 3 has reward 1."""
    config = AWACConfig(
        hidden=(16,), inverse_temperature=10.0, actor_learning_rate=1e-2, critic_learning_rate=1e-2
    )
    learner = AWAC(config, CONTEXT)
    state, draws = learner.init(generator()), generator(1)
    obs, ends = torch.zeros(64, 2), torch.ones(64, dtype=torch.bool)
    for _ in range(400):
        is_good = torch.rand(64, generator=draws) < 0.2
        action = torch.where(is_good, 3.0, 1.0) + 0.1 * torch.randn(64, generator=draws)
        learner.update(state, TransitionBatch(obs, action[:, None], is_good.float(), obs, ends, ~ends), draws)
    assert float(learner.policy(state).act(obs[:1])) == pytest.approx(3.0, abs=0.3)
    assert float(learner.value(state).value(obs[:1])) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("terminated", "expected"), [(False, 5.0), (True, 1.0)])
def test_reward_one_for_ever_is_worth_the_geometric_sum_and_one_step_is_worth_one(terminated, expected):
    learner, state = make(discount=0.8, critic_learning_rate=0.03, polyak_tau=0.3)
    draws = generator(1)
    for _ in range(250):
        learner.update(state, loop(16, draws, terminated=terminated), draws)
    value = float(learner.value(state).value(torch.zeros(1, 2)))
    assert value == pytest.approx(expected, rel=0.07)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"weights": "linear"}, "weights"),
        ({"log_std_bounds": (0.0, 0.0)}, "low < high"),
        ({"value_samples": 0}, "value_samples"),
        ({"awac_lambda": 1.0}, "awac_lambda"),
    ],
)
def test_bad_values_and_unknown_keys_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        AWACConfig(**bad)


def test_it_is_registered():
    assert LEARNERS.get("awac") is AWAC
