import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, Normal

from mbrl.ops.gaussian import (
    gaussian_kl,
    gaussian_log_prob,
    gaussian_nll,
    soft_clamp,
    standard_normal_kl,
    tanh_log_det,
)

finite = st.floats(-4, 4)


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@settings(deadline=None)
@given(st.tuples(finite, finite), st.tuples(finite, finite), st.tuples(finite, finite))
def test_log_prob_equals_the_reference_distribution(x, mean, log_std):
    x, mean, log_std = double(*x), double(*mean), double(*log_std)
    expected = Independent(Normal(mean, log_std.exp()), 1).log_prob(x)
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_std), expected, rtol=1e-12, atol=1e-12)


def test_log_prob_sums_over_the_last_axis_only():
    x = torch.zeros(3, 5, 2, dtype=torch.float64)
    value = gaussian_log_prob(x, torch.zeros_like(x), torch.zeros_like(x))
    torch.testing.assert_close(value, torch.full((3, 5), -math.log(2 * math.pi), dtype=torch.float64))


def test_tanh_log_det_equals_the_naive_form_where_that_is_exact():
    x = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    torch.testing.assert_close(tanh_log_det(x), (1 - torch.tanh(x) ** 2).log()[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("x", [-300.0, -30.0, 30.0, 300.0])
def test_tanh_log_det_follows_its_asymptote_where_the_naive_form_is_infinite(x):
    # 1 - tanh^2 = 4 exp(-2|x|) / (1 + exp(-2|x|))^2
    point = torch.tensor([[x]], requires_grad=True)
    value = tanh_log_det(point)
    assert torch.isinf((1 - torch.tanh(point.double()) ** 2).log())
    assert float(value.detach()) == pytest.approx(2 * math.log(2) - 2 * abs(x), rel=1e-6)
    value.sum().backward()
    assert float(point.grad) == pytest.approx(-2 * math.copysign(1, x), abs=1e-6)


def test_tanh_log_det_sums_over_dimensions():
    x = double(0.3, -1.2, 2.0)
    assert float(tanh_log_det(x)) == pytest.approx(sum(math.log(1 - math.tanh(v) ** 2) for v in x.tolist()))


def test_nll_is_minus_the_log_density_per_dimension():
    error, log_variance = double(0.5, -2.0), double(0.2, -1.0)
    expected = -Normal(torch.zeros(2, dtype=torch.float64), (0.5 * log_variance).exp()).log_prob(error)
    torch.testing.assert_close(gaussian_nll(error, log_variance), expected)


def test_nll_of_a_fixed_residual_is_least_at_its_log_mean_square():
    error = double(1.0, -3.0, 0.5, 2.0)
    best = math.log(float(error.square().mean()))
    log_variance = torch.tensor(best, dtype=torch.float64, requires_grad=True)
    loss = gaussian_nll(error, log_variance.expand(4)).mean()
    loss.backward()
    assert float(log_variance.grad) == pytest.approx(0, abs=1e-12)
    for other in (best - 0.1, best + 0.1):
        assert float(gaussian_nll(error, torch.full_like(error, other)).mean()) > float(loss.detach())


@pytest.mark.parametrize(("x", "expected"), [(0.0, -0.474004), (1000.0, 0.5000275), (-1000.0, -10.0)])
def test_soft_clamp_known_answers(x, expected):
    value = soft_clamp(double(x), double(-10.0), double(0.5))
    assert float(value) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-60, 60), min_size=2, max_size=2, unique=True))
def test_soft_clamp_keeps_order_and_bounds_up_to_its_leak(pair):
    low, high = double(-10.0), double(0.5)
    smaller, larger = (soft_clamp(double(v), low, high) for v in sorted(pair))
    assert float(smaller) <= float(larger)
    leak = math.log1p(math.exp(-10.5))
    assert float(smaller) >= -10.0
    assert float(larger) <= 0.5 + leak + 1e-12


def test_soft_clamp_never_stops_the_gradient_of_bounds_or_input():
    x = torch.tensor([-12.0, -3.0, 4.0], dtype=torch.float64, requires_grad=True)
    low = torch.full((3,), -10.0, dtype=torch.float64, requires_grad=True)
    high = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_clamp, (x, low, high))
    soft_clamp(x, low, high).sum().backward()
    assert (x.grad > 0).all()
    assert float(high.grad[2]) > 0.9  # a saturated entry moves with the bound that holds it
    assert float(low.grad[0]) > 0.8


def test_the_divergence_from_a_standard_normal_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    log_std = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    expected = torch.distributions.kl_divergence(Normal(mean, log_std.exp()), Normal(0.0, 1.0))
    torch.testing.assert_close(standard_normal_kl(mean, log_std), expected)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    assert float(standard_normal_kl(zero, zero)) == 0.0


def test_the_divergence_of_two_gaussians_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, other, log_std, log_other = torch.randn(4, 5, 3, dtype=torch.float64, generator=generator)
    first, second = (Normal(m, s.exp()) for m, s in ((mean, log_std), (other, log_other)))
    expected = torch.distributions.kl_divergence(first, second).sum(-1)
    torch.testing.assert_close(gaussian_kl((mean, log_std), (other, log_other)), expected)
    assert gaussian_kl((mean, log_std), (mean, log_std)).abs().max() == 0
