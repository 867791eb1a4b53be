"""Distillation by hand: what the policy, the clone and the critics regress to."""

import dataclasses
import math

import pytest
import torch

from mbrl.core.types import TransitionBatch, concat
from mbrl.learners.distil import Distil, DistilConfig
from tests.learners.twin import CONTEXT, constant_critics, constant_net, generator, transitions

SMALL = {"hidden": (16,), "discount": 0.9, "batch_size": 8}


def make(**config):
    learner = Distil(DistilConfig(**{**SMALL, **config}), CONTEXT)
    return learner, learner.init(generator(0))


def improved(count: int, *, value: float = 7.0) -> TransitionBatch:
    batch = transitions(count, seed=2)
    flags = torch.ones(count, dtype=torch.bool)
    return dataclasses.replace(batch, reward=torch.full((count,), value), terminated=flags, from_model=flags)


def test_the_loss_is_the_cross_entropy_of_improved_rows_and_the_anchor_on_all():
    learner, state = make(anchor_coef=0.5)
    constant_net(state.actor.net, 0.3, math.log(0.5))
    constant_net(state.clone.net, -0.1, math.log(2.0))
    batch = concat([transitions(4), improved(3)])
    loss, metrics = learner.policy_loss(state, batch)
    cross_entropy = -state.actor.log_prob(batch.observation[4:], batch.action[4:]).mean()
    divergence = math.log(2.0 / 0.5) + (0.25 + 0.16) / (2 * 4.0) - 0.5
    assert float(metrics["policy/clone_divergence"]) == pytest.approx(divergence, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(float(cross_entropy.detach()) + 0.5 * divergence, rel=1e-5)


def test_the_policy_is_the_clone_until_the_first_decision_arrives():
    learner, state = make()
    for step in range(3):
        learner.update(state, transitions(8), generator(step))
    assert torch.equal(state.actor.net.flat, state.clone.net.flat)
    learner.update(state, concat([transitions(4), improved(4)]), generator(9))
    assert not torch.equal(state.actor.net.flat, state.clone.net.flat)
    before = state.actor.net.flat.clone()
    learner.update(state, transitions(8), generator(10))  # the anchor alone holds it from now on
    assert not torch.equal(state.actor.net.flat, state.clone.net.flat)
    assert not torch.equal(state.actor.net.flat, before)


def test_the_clone_never_sees_an_improved_action():
    learner, state = make()
    other, alone = make()
    logged = transitions(4)
    learner.update(state, concat([logged, improved(4)]), generator(1))
    other.update(alone, logged, generator(1))
    assert torch.allclose(state.clone.net.flat, alone.clone.net.flat, atol=1e-7)


@pytest.mark.parametrize("learns", [False, True])
def test_critics_learn_what_the_search_found_only_where_they_are_asked_to(learns: bool):
    learner, state = make(learns_search_values=learns, critic_learning_rate=1e-2, critic_layer_norm=False)
    logged = dataclasses.replace(
        transitions(4), reward=torch.zeros(4), terminated=torch.ones(4, dtype=torch.bool)
    )
    batch = concat([logged, improved(4, value=7.0)])
    for step in range(400):
        learner.update(state, batch, generator(step))
    rows = slice(4, 8) if learns else slice(0, 4)
    found = state.critic(batch.observation[rows], state.critic.scale(batch.action[rows]))
    assert float((found - (7.0 if learns else 0.0)).abs().mean().detach()) < 0.5


def test_the_target_is_the_least_target_critic_at_a_draw_and_nothing_after_the_end():
    learner, state = make()
    constant_critics(state.target_critic, [3.0, 2.0])
    batch = dataclasses.replace(
        transitions(2), reward=torch.tensor([1.0, 5.0]), terminated=torch.tensor([False, True])
    )
    target = learner.critic_target(state, batch, torch.zeros(2, 1))
    assert target.tolist() == pytest.approx([1.0 + 0.9 * 2.0, 5.0])


def test_a_policy_without_an_anchor_reaches_the_improved_action():
    learner, state = make(anchor_coef=0.0, actor_learning_rate=1e-2)
    batch = concat([transitions(8), dataclasses.replace(improved(8), action=torch.full((8, 1), 0.6))])
    for step in range(400):
        learner.update(state, batch, generator(step))
    action = state.actor.act(batch.observation[8:])
    assert float((action - 0.6).abs().max()) < 0.1
