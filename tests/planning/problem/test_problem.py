"""What uncertainty costs, by hand."""

import math

import pytest
import torch

from mbrl.planning.problem.problem import Pessimism, StepOut, discounted_steps, pessimistic_edge


def _step(uncertainty: list[float], terminated: list[bool]) -> StepOut:
    rows = len(uncertainty)
    return StepOut(
        torch.zeros(rows, 1), torch.full((rows,), 2.0), torch.tensor(terminated), torch.tensor(uncertainty)
    )


def test_an_edge_without_pessimism_is_plain():
    edge = pessimistic_edge(
        _step([1.0, 5.0], [False, True]), torch.ones(2), discount=0.9, pessimism=Pessimism()
    )
    assert edge.reward.tolist() == [2.0, 2.0]
    assert edge.penalty.tolist() == [0.0, 0.0]
    assert edge.mixed.tolist() == [0.0, 0.0]
    assert edge.discount.tolist() == pytest.approx([0.9, 0.0])
    assert edge.ended.tolist() == [False, True]


def test_an_edge_that_halts_is_worth_the_loss_whatever_it_promises():
    pessimism = Pessimism(penalty_coef=0.5, halt_threshold=3.0, halt_loss=7.0)
    edge = pessimistic_edge(
        _step([1.0, 4.0, 4.0], [False, False, True]), torch.ones(3), discount=0.9, pessimism=pessimism
    )
    assert (edge.reward - edge.penalty).tolist() == pytest.approx([1.5, -7.0, -7.0])
    assert edge.reward.tolist() == [2.0, 2.0, 2.0]
    assert edge.discount.tolist() == pytest.approx([0.9, 0.0, 0.0])


def test_a_soft_horizon_hands_the_rest_to_the_critic():
    pessimism = Pessimism(soft_horizon_coef=2.0, uncertainty_mean=4.0)
    edge = pessimistic_edge(_step([2.0], [False]), torch.tensor([10.0]), discount=0.5, pessimism=pessimism)
    trust = math.exp(-1.0)
    assert float(edge.discount) == pytest.approx(0.5 * trust)
    assert float(edge.mixed) == pytest.approx(0.5 * (1 - trust) * 10.0)


def test_how_much_a_reward_at_every_step_is_worth():
    assert discounted_steps(0.9, None) == pytest.approx(10.0)
    assert discounted_steps(1.0, 5) == 5.0
    assert discounted_steps(0.5, 2) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="remain"):
        discounted_steps(1.0, None)


def test_a_leaf_is_the_mean_less_deviations_over_critics():
    values = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert Pessimism().leaf(values).tolist() == [2.0, 2.0]
    assert Pessimism(critic_lcb_coef=2.0).leaf(values).tolist() == [0.0, 2.0]
