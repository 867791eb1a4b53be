import dataclasses
import math

import pytest
import torch

from mbrl.learners.base import LEARNERS
from mbrl.learners.critics import PolicyValue
from mbrl.learners.deterministic import TD3Learner
from mbrl.learners.rebrac import ReBRAC, ReBRACConfig
from mbrl.learners.td3_bc import TD3BC, TD3BCConfig
from tests.learners.twin import (
    CONTEXT,
    bandit,
    constant_critics,
    constant_net,
    generator,
    loop,
    transitions,
)

SMALL = {"hidden": (16,), "discount": 0.9, "critic_layer_norm": False}
NETS = ("actor", "target_actor", "critic", "target_critic")


def make(kind: str, seed: int = 0, **config):
    values = {**SMALL, **config}
    learner: TD3Learner = (
        TD3BC(TD3BCConfig(**values), CONTEXT)
        if kind == "td3_bc"
        else ReBRAC(ReBRACConfig(**values, critic_bc_coef=0.0), CONTEXT)
    )
    return learner, learner.init(generator(seed))


def flats(state) -> dict[str, torch.Tensor]:
    return {name: getattr(state, name).net.flat.detach().clone() for name in NETS}


@pytest.mark.parametrize("kind", ["td3_bc", "rebrac"])
def test_targets_by_hand(kind):
    """0.5 + clip(0.2 noise, 0.5): the target critics see 0.6 and, at the clip, 1 (of 0.5 + 0.5)."""
    learner, state = make(kind)
    constant_net(state.target_actor.net, math.atanh(0.5))
    constant_net(state.actor.net, 5.0)  # the online networks do not count
    constant_critics(state.critic, [100.0, 100.0])
    seen = []
    constant_critics(state.target_critic, [7.0, 4.0])
    forward = state.target_critic.forward
    state.target_critic.forward = lambda obs, action: (seen.append(action), forward(obs, action))[1]
    batch = dataclasses.replace(
        transitions(3), reward=torch.tensor([1.0, 2.0, 3.0]), terminated=torch.tensor([False, True, False])
    )
    noise = torch.tensor([[0.5], [9.0], [-9.0]])
    target = learner.critic_target(state, batch, noise)
    assert seen[0][:, 0].tolist() == pytest.approx([0.6, 1.0, 0.0], abs=1e-6)
    assert target.tolist() == pytest.approx([1 + 0.9 * 4, 2.0, 3 + 0.9 * 4])
    assert not target.requires_grad
    assert learner.next_value(state, batch.next_observation, noise).tolist() == [4.0, 4.0, 4.0]
    assert torch.equal(seen[1], seen[0])


def test_the_noise_of_target_actions_stops_at_the_box():
    learner, state = make("td3_bc", target_noise_std=1.0, target_noise_clip=2.0)
    constant_net(state.target_actor.net, math.atanh(0.9))
    seen = []
    forward = state.target_critic.forward
    state.target_critic.forward = lambda obs, action: (seen.append(action), forward(obs, action))[1]
    learner.critic_target(state, transitions(2), torch.tensor([[0.5], [-1.5]]))
    assert seen[0][:, 0].tolist() == pytest.approx([1.0, -0.6])


@pytest.mark.parametrize("kind", ["td3_bc", "rebrac"])
def test_the_actor_and_both_targets_move_in_every_second_update_only(kind):
    learner, state = make(kind, polyak_tau=0.1)
    for step in range(1, 7):
        before = flats(state)
        metrics = learner.update(state, transitions(seed=step), generator(step))
        after = flats(state)
        moved = {name: not torch.equal(before[name], after[name]) for name in NETS}
        is_delayed_step = step % 2 == 0
        assert moved == dict.fromkeys(NETS, is_delayed_step) | {"critic": True}
        assert ("policy/loss" in metrics) is is_delayed_step
        assert state.updates == step
        if is_delayed_step:  # towards the networks that this very update has made
            for name in ("actor", "critic"):
                expected = 0.9 * before[f"target_{name}"] + 0.1 * after[name]
                torch.testing.assert_close(after[f"target_{name}"], expected)


def test_the_interval_of_the_delay_is_configurable():
    learner, state = make("td3_bc", policy_interval=3)
    moved = []
    for step in range(6):
        before = flats(state)["actor"]
        learner.update(state, transitions(seed=step), generator(step))
        moved.append(not torch.equal(before, flats(state)["actor"]))
    assert moved == [False, False, True, False, False, True]


def test_the_actor_learns_from_the_critic_of_the_same_update():
    """After a delayed update the actor's step is that of the loss under the new critic."""
    learner, state = make("td3_bc", critic_learning_rate=0.5, policy_interval=1, polyak_tau=1.0)
    batch, before = transitions(), flats(state)
    learner.update(state, batch, generator(3))
    fresh = make("td3_bc")[1]
    with torch.no_grad():
        fresh.actor.net.flat.copy_(before["actor"])
        fresh.critic.net.flat.copy_(state.critic.net.flat)
    (gradient,) = torch.autograd.grad(learner.actor_loss(fresh, batch), fresh.actor.net.flat)
    step = state.actor.net.flat.detach() - before["actor"]
    clear = gradient.abs() > 1e-5
    assert torch.equal(step[clear].sign(), -gradient[clear].sign())


@pytest.mark.parametrize("kind", ["td3_bc", "rebrac"])
def test_the_critic_loss_is_the_sum_of_both_and_the_actor_loss_leaves_the_critics_alone(kind):
    learner, state = make(kind)
    batch = transitions(2)
    noise = torch.randn(2, 1, generator=generator(3))
    target = learner.critic_target(state, batch, noise)
    values = state.critic(batch.observation, (batch.action - 2) / 2).detach()
    expected = sum(float((values[i, b] - target[b]) ** 2) / 2 for i in range(2) for b in range(2))
    metrics = learner.update(state, batch, generator(3))
    assert float(metrics["critic/loss"]) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["critic/value"]) == pytest.approx(float(values.mean()), rel=1e-5)
    assert float(metrics["critic/value_max"]) == pytest.approx(float(values.max()), rel=1e-5)
    state.critic.net.flat.grad = None
    learner.actor_loss(state, batch).backward()
    assert state.critic.net.flat.grad is None
    assert state.actor.net.flat.grad.abs().sum() > 0


def test_critics_differ_at_init_and_targets_start_as_copies():
    for kind in ("td3_bc", "rebrac"):
        _, state = make(kind)
        start = flats(state)
        assert torch.equal(start["target_actor"], start["actor"])
        assert torch.equal(start["target_critic"], start["critic"])
        assert not torch.isclose(start["critic"][0, :32], start["critic"][1, :32]).any()
        assert not any(p.requires_grad for p in (*state.target_actor.parameters(),))
        assert not any(p.requires_grad for p in (*state.target_critic.parameters(),))


@pytest.mark.parametrize("kind", ["td3_bc", "rebrac"])
def test_values_are_those_of_the_policys_action_in_environment_units(kind):
    learner, state = make(kind)
    value, obs = learner.value(state), transitions().observation
    action = learner.policy(state).act(obs)
    expected = state.critic(obs, (action - 2) / 2).amin(0).detach()
    torch.testing.assert_close(value.value(obs), expected)
    torch.testing.assert_close(value.action_value(obs, action), expected)
    constant_critics(state.critic, [2.0, 6.0])
    soft = PolicyValue(state.actor, state.critic, minimum_weight=0.75)
    assert soft.value(obs).tolist() == pytest.approx([3.0] * 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["td3_bc", "rebrac"])
def test_reward_one_for_ever_is_worth_the_geometric_sum_and_one_step_is_worth_one(kind):
    for terminated, expected in ((False, 1 / (1 - 0.8)), (True, 1.0)):
        learner, state = make(
            kind, hidden=(8,), discount=0.8, critic_learning_rate=0.05, polyak_tau=0.9, policy_interval=1
        )
        draws = generator(1)
        for _ in range(80):
            learner.update(state, loop(16, draws, terminated=terminated), draws)
        assert float(learner.value(state).value(torch.zeros(1, 2))) == pytest.approx(expected, rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["td3_bc", "rebrac"])
def test_both_beat_the_log_on_a_bandit(kind):
    """Logged actions lie up to 1.5 above and 0.5 below the best one: their mean is 0.5 too high."""
    weak = {"value_coef": 2.5} if kind == "td3_bc" else {"actor_bc_coef": 0.5}
    learner, state = make(kind, hidden=(32, 32), actor_learning_rate=3e-3, critic_learning_rate=3e-3, **weak)
    draws = generator(1)
    for _ in range(400):
        learner.update(state, bandit(64, draws, low=-0.5, high=1.5), draws)
    obs = 1.6 * torch.rand(200, 2, generator=draws) - 0.8
    error = learner.policy(state).act(obs)[:, 0] - 2 - 0.5 * obs[:, 0]
    assert float(error.square().mean().sqrt()) < 0.25  # a clone of the log: 0.5
    assert float(learner.value(state).value(obs).mean()) == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"policy_interval": 0}, "policy_interval"),
        ({"target_noise_clip": -0.1}, "target_noise_clip"),
        ({"hidden": ()}, "hidden"),
        ({"polyak_tau": 0.0}, "polyak_tau"),
        ({"polyak": 0.1}, "polyak"),
        ({"discount": 1.0}, "discount"),
    ],
)
def test_unknown_keys_and_bad_values_are_refused(bad, message):
    for config in (TD3BCConfig, ReBRACConfig):
        with pytest.raises(ValueError, match=message):
            config(**bad)


def test_the_core_itself_is_no_learner():
    assert "td3" not in LEARNERS.names()
    assert "deterministic" not in LEARNERS.names()
