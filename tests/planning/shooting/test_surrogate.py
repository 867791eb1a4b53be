"""A quadratic model of plans against quadratics whose maximum is known."""

import pytest
import torch

from mbrl.planning.shooting.surrogate import plans_needed, quadratic_peak


def _draws(plans: int, dims: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, plans, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dims", [1, 3, 8])
def test_the_peak_of_a_quadratic_is_found_exactly_from_as_few_plans_as_it_takes(dims: int):
    draws, root = _draws(plans_needed(dims), dims), _draws(dims, dims, seed=1)[0]
    curvature = root @ root.T + 0.1 * torch.eye(dims).double()
    best = torch.linspace(-0.7, 0.9, dims).double()
    away = draws - best
    found = quadratic_peak(draws, 5.0 - (away @ curvature * away).sum(-1))
    assert found is not None
    assert bool(found[1].all())
    torch.testing.assert_close(found[0], best.expand(2, -1), rtol=0, atol=1e-4)
    assert quadratic_peak(draws[:, :-1], away[:, :-1].sum(-1)) is None


def test_convex_directions_are_followed_uphill_and_not_beyond_what_was_looked_at():
    draws = _draws(60, 2)
    slope = quadratic_peak(draws, draws[..., 0] + 0.2 * draws[..., 0].square() - draws[..., 1].square())
    assert slope is not None
    assert bool((slope[0][:, 0] > draws[..., 0].amax(1)).all())
    assert bool((slope[0][:, 0] < draws[..., 0].amax(1) + 4.0 * draws[..., 0].std(1)).all())
    assert bool((slope[0][:, 1].abs() < 0.02).all())


def test_plans_without_a_value_say_nothing():
    draws = _draws(80, 2)
    score = -(draws - 0.3).square().sum(-1)
    score[0, ::3], score[1, 5:] = -torch.inf, -torch.inf
    found = quadratic_peak(draws, score)
    assert found is not None
    assert found[1].tolist() == [True, False]
    torch.testing.assert_close(found[0][0], torch.full((2,), 0.3).double(), rtol=0, atol=1e-4)
