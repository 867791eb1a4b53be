"""Critics at leaves, by hand."""

import torch

from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.prior import PolicyPrior
from mbrl.planning.problem.values import CriticLeaf
from tests.planning.linear import SPACE, LinearPolicy, QuadraticCritics

BOX = ActionBox(SPACE)
OBS, ACTION = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [-1.0]])  # actions of 1 and -2


def test_leaves_are_each_critics_value_of_the_mode():
    prior = PolicyPrior(LinearPolicy(), BOX)
    leaf = CriticLeaf(QuadraticCritics((0.0, 1.0)), prior, BOX)
    assert torch.allclose(leaf.value(OBS), torch.tensor([[-1.16, -4.64], [-0.16, -3.64]]))
    assert torch.allclose(leaf.action_value(OBS, ACTION)[0], torch.tensor([-2.0, -8.0]))
