import math

import pytest
import torch

from mbrl.learners.discrete.distil import DiscreteDistil, DiscreteDistilConfig
from tests.learners.discrete.chain import CONTEXT, constant_output, corridor, generator, two_rows


def make(**config):
    learner = DiscreteDistil(DiscreteDistilConfig(**{"hidden": (16,), "discount": 0.9, **config}), CONTEXT)
    return learner, learner.init(generator())


IMPROVED = torch.tensor([False, True])


def test_the_loss_of_the_policy_by_hand():
    learner, state = make(anchor_coef=0.5)
    constant_output(state.actor.net, [[0.0, math.log(2.0), math.log(5.0)]])
    constant_output(state.clone.net, [[0.0, 0.0, 0.0]])
    loss, metrics = learner.policy_loss(state, two_rows(from_model=IMPROVED))
    probs = [1 / 8, 2 / 8, 5 / 8]
    divergence = sum(p * (math.log(p) - math.log(1 / 3)) for p in probs)
    assert float(metrics["policy/cross_entropy"]) == pytest.approx(-math.log(1 / 8))
    assert float(metrics["policy/clone_divergence"]) == pytest.approx(divergence)
    assert float(loss.detach()) == pytest.approx(-math.log(1 / 8) + 0.5 * divergence)


def test_the_target_is_the_policys_own_value_by_hand():
    learner, state = make()
    constant_output(state.actor.net, [[0.0, math.log(2.0), math.log(5.0)]])
    constant_output(state.target_critic.net, [[8.0, 4.0, 1.0], [9.0, 3.0, 2.0]])
    value = (8.0 + 2 * 3.0 + 5 * 1.0) / 8
    assert learner.critic_target(state, two_rows()).tolist() == pytest.approx([1 + 0.9 * value, 2.0])


def test_critics_regress_on_logged_rows_alone():
    learner, state = make(critics=1, critic_layer_norm=False)
    constant_output(state.critic.net, [[0.0, 0.0, 0.5]])
    constant_output(state.target_critic.net, [[0.0, 0.0, 0.0]])
    metrics = learner.update(state, two_rows(from_model=IMPROVED), generator())
    assert float(metrics["critic/loss"]) == pytest.approx((0.5 - 1.0) ** 2)


def test_the_policy_is_the_clone_until_a_choice_was_improved():
    learner, state = make()
    rows = corridor(64)
    for _ in range(5):
        learner.update(state, rows, generator())
    assert torch.equal(state.actor.net.flat, state.clone.net.flat)
    learner.update(state, two_rows(from_model=IMPROVED), generator())
    assert not torch.equal(state.actor.net.flat, state.clone.net.flat)
