import math

import pytest
import torch

from mbrl.learners.discrete.bc import DiscreteBC, DiscreteBCConfig
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
    learner = DiscreteBC(DiscreteBCConfig(**{"hidden": (16,), **config}), CONTEXT)
    return learner, learner.init(generator())


def test_the_loss_by_hand_with_masks_and_without():
    learner, state = make()
    constant_output(state.actor.net, [[0.0, math.log(2.0), math.log(5.0)]])
    cloning, squares = learner.losses(state, two_rows())
    assert float(cloning.detach()) == pytest.approx(-(math.log(5 / 8) + math.log(1 / 8)) / 2)
    assert float(squares.detach()) == pytest.approx((math.log(2.0) ** 2 + math.log(5.0) ** 2) / 3)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    cloning, _ = learner.losses(state, two_rows(action_mask=mask))
    assert float(cloning.detach()) == pytest.approx(-(math.log(5 / 6) + math.log(1 / 3)) / 2)


def test_it_learns_the_shares_of_a_behaviour():
    learner, _ = make(learning_rate=1e-2, logit_coef=0.0)
    rows = corridor(2000, behaviour=(0.1, 0.3, 0.6))
    state = train(learner, 300, rows)
    shares = rows.action.mean(0)
    torch.testing.assert_close(state.actor.probs(CELLS).mean(0), shares, atol=0.05, rtol=0)
    assert learner.value(state) is None
