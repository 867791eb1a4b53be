import math

import pytest
import torch

from mbrl.learners.discrete.iql import DiscreteIQL, DiscreteIQLConfig
from tests.learners.discrete.chain import CELLS, CONTEXT, constant_output, generator, train, two_rows


def make(**config):
    learner = DiscreteIQL(DiscreteIQLConfig(**{"hidden": (16,), "discount": 0.9, **config}), CONTEXT)
    return learner, learner.init(generator())


def test_every_loss_of_an_update_by_hand():
    """Target critics of the logged choices: least 3 and 1; V is 2; online critics 4 and 0."""
    learner, state = make(expectile=0.7, inverse_temperature=0.5)
    constant_output(state.target_critic.net, [[1.0, 9.0, 5.0], [2.0, 9.0, 3.0]])
    constant_output(state.critic.net, [[0.0, 9.0, 4.0], [0.0, 9.0, 4.0]])
    constant_output(state.state_value.net, [[2.0]])
    constant_output(state.actor.net, [[0.0, math.log(2.0), math.log(5.0)]])
    for optimiser in (state.actor_optimiser, state.critic_optimiser, state.value_optimiser):
        optimiser._base = 0.0
    metrics = learner.update(state, two_rows(), generator())
    assert float(metrics["value/loss"]) == pytest.approx((0.7 * 1.0 + 0.3 * 1.0) / 2)
    weights = [math.exp(0.5), math.exp(-0.5)]
    expected = -(weights[0] * math.log(5 / 8) + weights[1] * math.log(1 / 8)) / 2
    assert float(metrics["policy/loss"]) == pytest.approx(expected, rel=1e-5)
    targets = [1 + 0.9 * 2.0, 2.0]
    squares = 2 * ((4.0 - targets[0]) ** 2 + (0.0 - targets[1]) ** 2) / 2
    assert float(metrics["critic/loss"]) == pytest.approx(squares, rel=1e-5)


def test_weights_are_capped():
    learner, state = make(inverse_temperature=100.0, max_weight=5.0)
    constant_output(state.target_critic.net, [[9.0, 9.0, 9.0]] * 2)
    constant_output(state.state_value.net, [[0.0]])
    state.value_optimiser._base = 0.0
    metrics = learner.update(state, two_rows(), generator())
    assert float(metrics["policy/weight"]) == 5.0
    assert float(metrics["policy/weights_capped"]) == 1.0


def test_it_leaves_the_behaviour_for_its_best_choices():
    learner, _ = make(
        hidden=(32, 32), expectile=0.9, inverse_temperature=10.0, actor_learning_rate=3e-3,
        critic_learning_rate=3e-3, polyak_tau=0.05, actor_schedule="constant",
    )  # fmt: skip
    state = train(learner, 400)
    assert state.actor.best(CELLS).tolist() == [2, 2, 2, 2]
    values = learner.value(state)
    assert values.action_values(CELLS, torch.eye(3)[[2, 2, 2, 2]]).shape == (2, 4)
