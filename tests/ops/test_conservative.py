import math

import pytest
import torch

from mbrl.ops.conservative import log_integral_exp, soft_maximum
from mbrl.ops.gaussian import LOG_2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def closed_form(slope: float, temperature: float) -> float:
    """`T log` of the integral of `exp(slope a / T)` over [-1, 1]."""
    c = slope / temperature
    return temperature * math.log(2 * math.sinh(c) / c)


def test_the_closed_form_is_the_one_of_the_tables():
    assert [closed_form(c, 1.0) for c in (1, 2, 5)] == pytest.approx([0.8546, 1.2884, 3.3905], abs=1e-4)
    assert [closed_form(2, t) for t in (2, 0.5)] == pytest.approx([1.7092, 1.3067], abs=1e-4)


def mixed_proposals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Half uniform on [-1, 1], half `tanh` of a wide normal, with the density of each source."""
    uniform = 2 * torch.rand(count, 1, generator=generator(1)) - 1
    x = 0.3 + torch.randn(count, 1, generator=generator(2))
    squashed = torch.tanh(x)
    log_normal = -0.5 * (x - 0.3).square() - 0.5 * math.log(2 * math.pi)
    log_squashed = log_normal - torch.log(1 - squashed.square())
    return torch.cat([uniform, squashed]), torch.cat([torch.full_like(uniform, -LOG_2), log_squashed])


@pytest.mark.parametrize("slope", [1.0, 2.0, 5.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_many_samples_give_the_integral_at_every_temperature(slope, temperature):
    action, log_density = mixed_proposals(20_000)
    estimate = log_integral_exp((slope * action)[None], log_density, temperature=temperature)
    assert float(estimate) == pytest.approx(closed_form(slope, temperature), abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_dividing_the_density_by_the_temperature_would_be_seen(temperature):
    action, log_density = mixed_proposals(20_000)
    inside = (torch.logsumexp((2 * action - log_density) / temperature, 0) - math.log(40_000)) * temperature
    assert abs(float(inside) - closed_form(2.0, temperature)) > 0.2


def test_one_number_for_each_critic_and_state_equal_to_a_loop_over_thirty_actions():
    values = torch.randn(2, 30, 5, generator=generator(1), dtype=torch.float64)
    log_density = torch.randn(30, 5, generator=generator(2), dtype=torch.float64)
    estimate = log_integral_exp(values, log_density, temperature=0.7)
    assert estimate.shape == (2, 5)
    for i in range(2):
        for state in range(5):
            total = sum(
                math.exp(float(values[i, j, state]) / 0.7 - float(log_density[j, state])) for j in range(30)
            )
            assert float(estimate[i, state]) == pytest.approx(0.7 * math.log(total / 30))
            plain = sum(math.exp(float(values[i, j, state]) / 0.7) for j in range(30))
            assert float(soft_maximum(values, temperature=0.7)[i, state]) == pytest.approx(
                0.7 * math.log(plain)
            )


def test_it_is_biased_low_with_few_actions():
    slope, draws = 2.0, generator(3)
    action = 2 * torch.rand(10, 20_000, generator=draws) - 1
    estimate = log_integral_exp(
        (slope * action)[None], torch.full_like(action, -LOG_2), temperature=1.0
    ).mean()
    assert -0.12 < float(estimate) - closed_form(slope, 1.0) < -0.02


def test_large_values_do_not_overflow():
    values = torch.tensor([[[1e4], [1e4]]])
    assert float(log_integral_exp(values, torch.zeros(2, 1), temperature=1.0)) == pytest.approx(1e4)
    assert float(soft_maximum(values, temperature=1.0)) == pytest.approx(1e4 + math.log(2), rel=1e-6)
