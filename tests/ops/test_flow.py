import math

import pytest
import torch

from mbrl.ops.flow import follow_flow, straight_path


def test_the_path_by_hand():
    start, end = torch.tensor([[1.0, -2.0], [0.0, 4.0]]), torch.tensor([[3.0, 2.0], [1.0, 0.0]])
    point, velocity = straight_path(start, end, torch.tensor([0.25, 1.0]))
    assert point.tolist() == [[1.5, -1.0], [1.0, 0.0]]
    assert velocity.tolist() == [[2.0, 4.0], [1.0, -4.0]]


def test_a_constant_velocity_is_followed_exactly_whatever_the_steps():
    start = torch.tensor([[0.5, -1.0]])
    for steps in (1, 2, 8):
        end = follow_flow(lambda x, _t: torch.full_like(x, 3.0), start, steps=steps)
        torch.testing.assert_close(end, start + 3.0)


def test_steps_begin_at_time_zero_and_never_reach_one():
    times: list[float] = []
    follow_flow(lambda x, t: times.append(t) or x * 0, torch.zeros(1, 1), steps=4)
    assert times == [0.0, 0.25, 0.5, 0.75]


def test_a_linear_field_shrinks_as_eulers_method_says():
    end = follow_flow(lambda x, _t: -x, torch.ones(1, 1), steps=5)
    assert float(end) == pytest.approx((1 - 1 / 5) ** 5)
    assert float(follow_flow(lambda x, _t: -x, torch.ones(1, 1), steps=1000)) == pytest.approx(
        math.exp(-1), rel=1e-3
    )


def test_the_field_of_a_gaussian_carries_each_quantile_to_its_own():
    """E[x_1 - x_0 | x_t] for x_0 ~ N(0, 1), x_1 ~ N(m, s^2) in closed form: noise x_0 ends at m + s x_0."""
    mean, std = 0.6, 0.25

    def velocity(x: torch.Tensor, time: float) -> torch.Tensor:
        slope = (time * std**2 - (1 - time)) / ((1 - time) ** 2 + (time * std) ** 2)
        return mean + slope * (x - time * mean)

    start = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        follow_flow(velocity, start, steps=4000), mean + std * start, atol=2e-3, rtol=0
    )
