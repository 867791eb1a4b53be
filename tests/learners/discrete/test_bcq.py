import math

import pytest
import torch

from mbrl.learners.discrete.bcq import DiscreteBCQ, DiscreteBCQConfig
from tests.learners.discrete.chain import (
    CELLS,
    CONTEXT,
    constant_output,
    corridor,
    generator,
    train,
    two_rows,
)


def make(**config):
    learner = DiscreteBCQ(DiscreteBCQConfig(**{"hidden": (16,), "discount": 0.9, **config}), CONTEXT)
    return learner, learner.init(generator())


def test_only_choices_that_the_clone_makes_often_enough_are_taken_and_bootstrapped_from():
    """The clone says 0.1, 0.25, 0.65; shares of the likeliest are 0.15, 0.38, 1."""
    learner, state = make(threshold=0.3)
    constant_output(state.policy.clone, [[math.log(0.1), math.log(0.25), math.log(0.65)]])
    constant_output(state.policy.critic.net, [[9.0, 5.0, 2.0]])
    constant_output(state.target_critic.net, [[7.0, 4.0, 3.0]])
    obs = torch.zeros(1, 2)
    assert state.policy.act(obs).tolist() == [[0.0, 1.0, 0.0]]
    assert learner.critic_target(state, two_rows()).tolist() == pytest.approx([1 + 0.9 * 4.0, 2.0])
    # Among the first two the likeliest is the second, of which the first is a share of 0.4.
    mask = torch.tensor([[True, True, False]])
    assert state.policy.act(obs, None, mask).tolist() == [[1.0, 0.0, 0.0]]


def test_the_loss_of_the_clone_by_hand_on_logged_rows_alone():
    learner, state = make(logit_coef=0.5)
    logits = [0.0, math.log(2.0), math.log(5.0)]
    constant_output(state.policy.clone, [logits])
    rows = two_rows(from_model=torch.tensor([False, True]))
    loss, metrics = learner.regulariser(state, rows, torch.zeros(1, 2, 3))
    cloning = -math.log(5 / 8)
    assert float(metrics["clone/loss"]) == pytest.approx(cloning)
    assert float(loss.detach()) == pytest.approx(cloning + 0.5 * sum(x * x for x in logits) / 3)


def test_it_does_not_follow_values_where_the_log_has_no_choice():
    learner, _ = make(hidden=(32, 32), learning_rate=3e-3, polyak_tau=0.05)
    rows = corridor(256, behaviour=(0.45, 0.1, 0.45))
    state = train(learner, 400, rows)
    assert state.policy.best(CELLS).tolist() == [2, 2, 2, 2]
    with torch.no_grad():  # values that promise most for what is rare
        constant_output(state.policy.critic.net, [[0.0, 100.0, 1.0]])
    assert state.policy.best(CELLS).tolist() == [2, 2, 2, 2]
