import math

import pytest
import torch

from mbrl.dynamics.loss import bounded_gaussian_loss
from mbrl.ops.gaussian import soft_clamp


def composite(output, bounds, target, beta):
    mean, raw = output.chunk(2, -1)
    log_variance = soft_clamp(raw, bounds[:, :1], bounds[:, 1:])
    weight = torch.exp(log_variance).detach() ** beta
    return (weight * ((mean - target).square() * torch.exp(-log_variance) + log_variance)).mean((1, 2))


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    bounds = torch.stack((-3 + 0.1 * draw(3, 4), 0.5 + 0.1 * draw(3, 4)), 1)
    return (4 * draw(3, 16, 8)).requires_grad_(), bounds.requires_grad_(), draw(3, 16, 4)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_value_and_gradients_are_those_of_ordinary_operations(problem, beta):
    output, bounds, target = problem
    weights = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
    results = []
    for loss in (bounded_gaussian_loss, composite):
        value = loss(output, bounds, target, beta)
        results.append((value, *torch.autograd.grad((weights * value).sum(), (output, bounds))))
    for mine, oracle in zip(*results, strict=True):
        torch.testing.assert_close(mine, oracle, rtol=1e-10, atol=1e-12)


def test_gradient_of_one_member_does_not_reach_another(problem):
    output, bounds, target = problem
    by_output, by_bounds = torch.autograd.grad(
        bounded_gaussian_loss(output, bounds, target)[1], (output, bounds)
    )
    assert by_output[[0, 2]].abs().max() == 0
    assert by_bounds[[0, 2]].abs().max() == 0
    assert by_output[1].abs().min() > 0


def test_at_beta_one_means_are_fitted_by_least_squares(problem):
    output, bounds, target = problem
    loss = bounded_gaussian_loss(output, bounds, target, 1.0).sum()
    (slope,) = torch.autograd.grad(loss, output)
    squares = ((output[..., :4] - target).square().mean((1, 2))).sum()
    (of_squares,) = torch.autograd.grad(squares, output)
    torch.testing.assert_close(slope[..., :4], of_squares[..., :4])


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_free_log_variance_settles_at_the_log_of_the_mean_squared_error(beta):
    error = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    best = math.log(float(error.square().mean()))
    bounds = torch.tensor([[[-40.0], [40.0]]], dtype=torch.float64)  # far out: the clamp is the identity

    def slope(log_variance):
        output = torch.stack((error, torch.full_like(error, log_variance)), -1)[None].requires_grad_()
        loss = bounded_gaussian_loss(output, bounds, torch.zeros(1, 3, 1, dtype=torch.float64), beta)
        return float(torch.autograd.grad(loss.sum(), output)[0][..., 1].sum())

    assert slope(best) == pytest.approx(0.0, abs=1e-12)
    assert slope(best - 0.1) < 0 < slope(best + 0.1)
