import math

import pytest
import torch

from mbrl.ops.advantage import expectile_loss, exponential_weight, softmax_weight


@pytest.mark.parametrize("expectile", [0.1, 0.5, 0.9])
def test_the_minimum_for_zero_and_one_is_the_expectile_itself(expectile):
    targets = torch.tensor([0.0, 1.0], dtype=torch.float64)
    grid = torch.linspace(0, 1, 1001, dtype=torch.float64)
    losses = torch.stack([expectile_loss(targets - value, expectile=expectile) for value in grid])
    assert float(grid[losses.argmin()]) == pytest.approx(expectile, abs=1e-3)


def test_expectile_loss_by_hand_and_its_symmetric_case():
    error = torch.tensor([2.0, -1.0, 0.0])
    assert float(expectile_loss(error, expectile=0.7)) == pytest.approx((0.7 * 4 + 0.3 * 1) / 3)
    assert float(expectile_loss(error, expectile=0.5)) == pytest.approx(0.5 * 5 / 3)


def test_weights_are_exponential_below_the_cap_and_the_cap_where_the_exponential_overflows():
    advantage = torch.tensor([-1.0, 0.0, 1.0, 1e6, -1e6])
    weight = exponential_weight(advantage, inverse_temperature=3.0, max_weight=100.0)
    assert weight.tolist() == pytest.approx([math.exp(-3), 1.0, math.exp(3), 100.0, 0.0])
    cloned = exponential_weight(advantage, inverse_temperature=0.0, max_weight=100.0)
    assert cloned.tolist() == [1.0] * 5


def test_softmax_weights_have_mean_one_and_do_not_see_a_common_shift():
    advantage = torch.tensor([0.0, math.log(2.0), math.log(5.0)])
    weight = softmax_weight(advantage, inverse_temperature=1.0)
    assert weight.tolist() == pytest.approx([3 / 8, 6 / 8, 15 / 8])
    torch.testing.assert_close(
        softmax_weight(advantage + 500, inverse_temperature=1.0), weight, rtol=1e-4, atol=0
    )
