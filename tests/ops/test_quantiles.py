import pytest
import torch

from mbrl.ops.quantiles import huber, huber_critic_loss, quantile_huber_loss


def test_huber_is_a_square_and_then_a_line():
    error = torch.tensor([-3.0, -0.5, 0.0, 1.0, 2.0])
    assert huber(error).tolist() == pytest.approx([2.5, 0.125, 0.0, 0.5, 1.5])
    assert huber(error, width=2.0).tolist() == pytest.approx([4.0, 0.125, 0.0, 0.5, 2.0])


def test_a_sum_over_critics_of_means_over_rows():
    values = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    target = torch.tensor([1.5, 1.0])
    # (0.125 + 0.5) / 2 + (1.0 + 2.5) / 2
    assert float(huber_critic_loss(values, target)) == pytest.approx(0.3125 + 1.75)


def test_the_quantile_loss_by_loop():
    generator = torch.Generator().manual_seed(0)
    quantiles, target = torch.randn(2, 3, 4, generator=generator), torch.randn(3, 5, generator=generator)
    width, expected = 0.7, 0.0
    for i in range(2):
        for b in range(3):
            for j in range(4):
                tau = (j + 0.5) / 4
                for k in range(5):
                    u = float(target[b, k] - quantiles[i, b, j])
                    size = abs(u)
                    value = 0.5 * u * u if size <= width else width * (size - 0.5 * width)
                    expected += abs(tau - (1.0 if u < 0 else 0.0)) * value / width / 5 / 3
    assert float(quantile_huber_loss(quantiles, target, width=width)) == pytest.approx(expected, rel=1e-5)


def test_its_minimum_is_the_quantile():
    sample = torch.linspace(0.0, 1.0, 101)[None]
    quantiles = torch.zeros(1, 1, 4, requires_grad=True)
    for _ in range(400):
        (gradient,) = torch.autograd.grad(quantile_huber_loss(quantiles, sample, width=1e-3), quantiles)
        with torch.no_grad():
            quantiles -= 0.02 * gradient
    assert quantiles.detach().flatten().tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.03)
