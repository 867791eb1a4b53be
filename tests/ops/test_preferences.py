import math

import pytest
import torch

from mbrl.ops.preferences import (
    bradley_terry_loss,
    contrastive_loss,
    direct_preference_loss,
    logistic_loss,
    preference_probability,
)

LEFT, RIGHT, TARGET = (
    torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64),
    torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64),
    torch.tensor([1.0, 1.0, 0.25], dtype=torch.float64),
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_bradley_terry_loss_and_its_gradient_by_hand() -> None:
    """dL/d(left) = sigmoid(left - right) - target, and minus that for right."""
    left, right = LEFT.clone().requires_grad_(), RIGHT.clone().requires_grad_()
    loss = bradley_terry_loss(left, right, TARGET)
    by_hand = [-math.log(sigmoid(1.0)), -math.log(sigmoid(-2.0)), math.log(2.0)]
    assert loss.tolist() == pytest.approx(by_hand)
    loss.sum().backward()
    gradient = [sigmoid(1.0) - 1, sigmoid(-2.0) - 1, 0.5 - 0.25]
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.tolist() == pytest.approx(gradient)
    assert right.grad.tolist() == pytest.approx([-g for g in gradient])


def test_a_lapse_bounds_what_an_answer_may_cost() -> None:
    probability = preference_probability(torch.tensor([1000.0, -1000.0]), torch.zeros(2), lapse=0.1)
    assert probability.tolist() == pytest.approx([0.95, 0.05])
    loss = bradley_terry_loss(torch.tensor([-1000.0]), torch.zeros(1), torch.ones(1), lapse=0.1)
    assert float(loss) == pytest.approx(-math.log(0.05))
    small = bradley_terry_loss(LEFT, RIGHT, TARGET, lapse=1e-12)
    assert small.tolist() == pytest.approx(bradley_terry_loss(LEFT, RIGHT, TARGET).tolist())


def test_the_contrast_is_equation_5_with_its_bias() -> None:
    def eq(plus: float, minus: float, bias: float) -> float:
        return -math.log(math.exp(plus) / (math.exp(plus) + math.exp(bias * minus)))

    loss = contrastive_loss(LEFT, RIGHT, TARGET, conservative_bias=0.5)
    mixed = 0.25 * eq(0.5, 0.5, 0.5) + 0.75 * eq(0.5, 0.5, 0.5)
    assert loss.tolist() == pytest.approx([eq(2.0, 1.0, 0.5), eq(-1.0, 1.0, 0.5), mixed])
    reversed_ = contrastive_loss(LEFT, RIGHT, 1 - TARGET, conservative_bias=0.5)
    assert float(reversed_[0]) == pytest.approx(eq(1.0, 2.0, 0.5))
    plain = contrastive_loss(LEFT, RIGHT, TARGET)
    assert plain.tolist() == pytest.approx(bradley_terry_loss(LEFT, RIGHT, TARGET).tolist())


def test_a_bias_below_one_rewards_scores_that_rise_together() -> None:
    """`log(1 + exp(bias A- - A+))` with A+ = A- = A falls in A for a bias below 1 and is flat at 1."""
    one = torch.ones(2)
    low, high = torch.tensor([0.0, 0.0]), torch.tensor([3.0, 3.0])
    assert torch.equal(contrastive_loss(low, low, one), contrastive_loss(high, high, one))
    biased = [float(contrastive_loss(a, a, one, conservative_bias=0.5).mean()) for a in (low, high)]
    assert biased[1] < biased[0]


def test_dpo_is_bradley_terry_of_log_ratios() -> None:
    reference = torch.tensor([0.5, -0.5, 0.0]), torch.tensor([0.25, 0.0, 1.0])
    loss = direct_preference_loss(LEFT, RIGHT, *reference, TARGET)
    gaps = [(2.0 - 0.5) - (1.0 - 0.25), (-1.0 + 0.5) - 1.0, 0.5 - (0.5 - 1.0)]
    by_hand = [
        -t * math.log(sigmoid(g)) - (1 - t) * math.log(sigmoid(-g))
        for g, t in zip(gaps, TARGET.tolist(), strict=True)
    ]
    assert loss.tolist() == pytest.approx(by_hand)


def test_the_logistic_loss_and_its_gradient_by_hand() -> None:
    """dL/dx = sigmoid(x) - y; the loss stays finite where sigmoid(x) rounds to 0 or 1."""
    logit = torch.tensor([2.0, -1.0, 0.0, 1000.0], dtype=torch.float64, requires_grad=True)
    loss = logistic_loss(logit, torch.tensor([1.0, 1.0, 0.25, 0.0], dtype=torch.float64))
    by_hand = [-math.log(sigmoid(2.0)), -math.log(sigmoid(-1.0)), math.log(2.0), 1000.0]
    assert loss.tolist() == pytest.approx(by_hand)
    loss.sum().backward()
    assert logit.grad is not None
    assert logit.grad.tolist() == pytest.approx([sigmoid(2.0) - 1, sigmoid(-1.0) - 1, 0.25, 1.0])
