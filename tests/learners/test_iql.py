import dataclasses
import math

import pytest
import torch

from mbrl.core.types import SpaceSpec, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerContext
from mbrl.learners.iql import IQL, IQLConfig
from mbrl.learners.weighted_cloning import regression_error
from tests.learners.twin import CONTEXT, generator, transitions

SMALL = {"hidden": (16,), "discount": 0.9}


def make(seed: int = 0, *, context: LearnerContext = CONTEXT, **config):
    learner = IQL(IQLConfig(**{**SMALL, **config}), context)
    return learner, learner.init(generator(seed))


def constant_output(net, values: list[float]) -> None:
    with torch.no_grad():
        net.flat.zero_()
        net.layers(net.flat)[-1].bias.copy_(torch.tensor(values)[:, None, None])


def freeze(state) -> None:
    """Steps of no size: what an update reports then follows from the networks as they stand."""
    for optimiser in (state.actor_optimiser, state.critic_optimiser, state.value_optimiser):
        optimiser._base = 0.0


def test_every_loss_of_an_update_by_hand():
    """Target critics 5 and 3, V 2, online critics 1 and 2, mean action 0, deviation 1."""
    learner, state = make(expectile=0.7, inverse_temperature=0.5)
    constant_output(state.target_critic.net, [5.0, 3.0])
    constant_output(state.critic.net, [1.0, 2.0])
    constant_output(state.state_value.net, [2.0])
    constant_output(state.actor.net, [0.0])
    freeze(state)
    batch = dataclasses.replace(
        transitions(2),
        action=torch.tensor([[2.0], [3.0]]),  # 0 and 0.5 when scaled
        reward=torch.tensor([1.0, 2.0]),
        terminated=torch.tensor([False, True]),
    )
    metrics = learner.update(state, batch, generator())
    assert float(metrics["value/loss"]) == pytest.approx(0.7 * 1.0)  # least target 3 exceeds V by 1
    weight = math.exp(0.5)
    density = -0.5 * math.log(2 * math.pi)
    log_probs = [density, density - 0.5 * 0.25]
    assert float(metrics["policy/weight"]) == pytest.approx(weight, rel=1e-5)
    assert float(metrics["policy/loss"]) == pytest.approx(-weight * sum(log_probs) / 2, rel=1e-5)
    targets = [1 + 0.9 * 2.0, 2.0]  # V(s') bootstraps unless terminated
    expected = sum((q - y) ** 2 for q in (1.0, 2.0) for y in targets) / 2
    assert float(metrics["critic/loss"]) == pytest.approx(expected, rel=1e-5)


def test_a_value_above_the_target_is_pulled_down_with_the_other_weight():
    learner, state = make(expectile=0.7)
    constant_output(state.target_critic.net, [5.0, 3.0])
    constant_output(state.state_value.net, [5.0])
    freeze(state)
    metrics = learner.update(state, transitions(), generator())
    assert float(metrics["value/loss"]) == pytest.approx(0.3 * 4.0, rel=1e-5)


def test_actor_and_critics_use_the_new_value_and_the_old_targets():
    """V moves first: weights and Bellman targets follow from the values after its step."""
    batch = transitions()
    learner, state = make(critic_learning_rate=0.1)
    scaled = state.critic.scale(batch.action)
    with torch.no_grad():
        least = state.target_critic(batch.observation, scaled).amin(0)
        online = state.critic(batch.observation, scaled)
        old = state.state_value(batch.observation)
        error = regression_error(state.actor, batch)
    metrics = learner.update(state, batch, generator())
    with torch.no_grad():
        new, after = (state.state_value(obs) for obs in (batch.observation, batch.next_observation))
    assert float((new - old).abs().max()) > 0.05
    weight = (3.0 * (least - new)).exp().clamp_max(100.0)
    assert float(metrics["policy/loss"]) == pytest.approx(float((weight * error).mean()), rel=1e-4)
    target = batch.reward + 0.9 * after * ~batch.terminated
    expected = float((online - target).square().mean(1).sum())
    assert float(metrics["critic/loss"]) == pytest.approx(expected, rel=1e-4)


def test_targets_move_by_tau_and_an_update_draws_nothing():
    learner, state = make(polyak_tau=0.25)
    before = state.target_critic.net.flat.clone()
    draws = generator(5)
    noise = draws.get_state()
    learner.update(state, transitions(), draws)
    torch.testing.assert_close(
        state.target_critic.net.flat, 0.75 * before + 0.25 * state.critic.net.flat.detach()
    )
    assert torch.equal(draws.get_state(), noise)


def test_the_deviation_is_trained_and_belongs_to_the_exported_policy():
    learner, state = make(actor_learning_rate=0.01)
    before = state.actor.log_std.detach().clone()
    learner.update(state, transitions(), generator())
    assert not torch.equal(state.actor.log_std.detach(), before)
    assert "log_std" in state.actor.state_dict()
    assert state.actor.spec.kind == "clipped_gaussian"


def test_the_deterministic_form_regresses_the_sum_of_squares():
    learner, state = make(form="deterministic", inverse_temperature=0.0)
    constant_output(state.actor.net, [0.0])
    batch = dataclasses.replace(transitions(2), action=torch.tensor([[2.0], [3.0]]))
    metrics = learner.update(state, batch, generator())
    assert float(metrics["policy/loss"]) == pytest.approx(0.25 / 2)
    wide = SpaceSpec(2, 2, (-1.0, -1.0), (1.0, 1.0))
    _, state = make(form="deterministic", context=dataclasses.replace(CONTEXT, space=wide))
    with torch.no_grad():
        state.actor.net.flat.zero_()
    batch = dataclasses.replace(transitions(1), action=torch.tensor([[0.5, -1.0]]), next_action=None)
    assert float(regression_error(state.actor, batch).detach()) == pytest.approx(1.25)


def test_weights_are_capped_and_reported():
    learner, state = make(max_weight=2.0)
    constant_output(state.target_critic.net, [50.0, 50.0])
    constant_output(state.state_value.net, [0.0])
    metrics = learner.update(state, transitions(), generator())
    assert float(metrics["policy/weight"]) == pytest.approx(2.0)
    assert float(metrics["policy/weights_capped"]) == 1.0


def test_the_actor_follows_a_cosine_to_zero_and_the_critics_do_not():
    learner, state = make(context=dataclasses.replace(CONTEXT, total_updates=2))
    for step in range(2):
        learner.update(state, transitions(seed=step), generator())
    actor, critic = state.actor.net.flat.detach().clone(), state.critic.net.flat.detach().clone()
    log_std = state.actor.log_std.detach().clone()
    learner.update(state, transitions(), generator())
    assert torch.equal(state.actor.net.flat.detach(), actor)
    assert torch.equal(state.actor.log_std.detach(), log_std)
    assert not torch.equal(state.critic.net.flat.detach(), critic)


def test_values_are_the_value_network_and_the_least_critic():
    learner, state = make()
    constant_output(state.state_value.net, [2.0])
    constant_output(state.critic.net, [4.0, 3.0])
    value = learner.value(state)
    batch = transitions()
    assert value.value(batch.observation).tolist() == [2.0] * 8
    assert value.action_value(batch.observation, batch.action).tolist() == [3.0] * 8


def bandit(draws: torch.Generator) -> TransitionBatch:
    """One state, two actions with noise around 1 and 3; rewards 0 and 1, 80 % of the log is the worse one."""
    is_good = torch.rand(64, generator=draws) < 0.2
    action = torch.where(is_good, 3.0, 1.0) + 0.1 * torch.randn(64, generator=draws)
    obs = torch.zeros(64, 2)
    ends = torch.ones(64, dtype=torch.bool)
    return TransitionBatch(obs, action[:, None], is_good.float(), obs, ends, ~ends)


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_in_a_bandit_the_value_is_the_expectile_and_the_policy_the_best_logged_action(expectile):
    """Rewards 0 (80 %) and 1 (20 %): the expectile solves `t 0.2 (1 - v) = (1 - t) 0.8 v`."""
    learner, state = make(
        expectile=expectile,
        inverse_temperature=10.0,
        actor_learning_rate=1e-2,
        critic_learning_rate=1e-2,
        polyak_tau=0.1,
        context=dataclasses.replace(CONTEXT, total_updates=500),
    )
    draws = generator(1)
    for _ in range(500):
        learner.update(state, bandit(draws), draws)
    obs = torch.zeros(1, 2)
    expected = 0.2 * expectile / (0.2 * expectile + 0.8 * (1 - expectile))
    assert float(learner.value(state).value(obs)) == pytest.approx(expected, abs=0.08)
    assert float(learner.policy(state).act(obs)) == pytest.approx(3.0, abs=0.25)


def loop_value(*, terminated: bool) -> float:
    learner, state = make(discount=0.8, critic_learning_rate=0.03, polyak_tau=0.3)
    obs = torch.zeros(16, 2)
    draws = generator(1)
    for _ in range(250):
        batch = TransitionBatch(
            obs,
            4 * torch.rand(16, 1, generator=draws),
            torch.ones(16),
            obs,
            torch.full((16,), terminated),
            torch.zeros(16, dtype=torch.bool),
        )
        learner.update(state, batch, draws)
    return float(learner.value(state).value(obs[:1]))


def test_reward_one_for_ever_is_worth_the_geometric_sum_and_one_step_is_worth_one():
    assert loop_value(terminated=False) == pytest.approx(5.0, rel=0.07)
    assert loop_value(terminated=True) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"expectile": 1.0}, "expectile"),
        ({"log_std_bounds": (2.0, -5.0)}, "low < high"),
        ({"form": "mixture"}, "form"),
        ({"beta": 3.0}, "beta"),
        ({"max_weight": 0.0}, "max_weight"),
    ],
)
def test_bad_values_and_unknown_keys_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        IQLConfig(**bad)


def test_it_is_registered():
    assert LEARNERS.get("iql") is IQL
