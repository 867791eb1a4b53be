"""Estimates of gains against true ones, by hand and on a task whose gains are known."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.planning.improvement.audit import audit_row, gain_estimates
from mbrl.planning.noise import RowNoise
from tests.planning.worlds import LQR, LinearPrior


def row(estimated: list[list[float]], true: list[list[float]]):
    return audit_row("it", np.array(estimated), np.array(true), np.random.default_rng(0))


def test_what_seems_best_is_taken_and_asked_what_it_gave():
    estimated = [[0.5, 2.0], [-1.0, -0.1], [1.0, 0.2], [np.nan, 3.0]]
    true = [[9.0, -1.0], [5.0, 7.0], [4.0, 9.0], [9.0, 2.0]]
    found = row(estimated, true)
    assert found.acts == 0.75
    assert found.predicted == pytest.approx((2.0 + 0.0 + 1.0 + 3.0) / 4)
    assert found.realised == pytest.approx((-1.0 + 0.0 + 4.0 + 2.0) / 4)
    low, high = found.realised_interval
    assert low < found.realised < high


def test_ranks_are_correlated_over_states_and_candidates():
    true = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert row([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]], true).correlation == pytest.approx(1.0)
    assert row([[6.0, 5.0], [4.0, 3.0], [2.0, 1.0]], true).correlation == pytest.approx(-1.0)
    # Ranks 1 2 3 4 6 5: 1 - 6 * 2 / (6 * 35).
    assert row([[1.0, 2.0], [3.0, 4.0], [9.0, 8.0]], true).correlation == pytest.approx(1 - 12 / 210)
    assert row([[1.0, 1.0]] * 3, true).correlation is None


def test_one_candidate_a_state_is_only_ranked():
    found = row([[1.0], [2.0], [3.0]], [[1.0], [3.0], [9.0]])
    assert found.correlation == pytest.approx(1.0)
    assert found.predicted is None
    assert found.realised is None


def test_exact_values_and_models_estimate_the_true_gain_at_every_horizon():
    """LQR: Q(s, a) - Q(s, pi(s)) whatever the number of model steps before the exact value."""
    lqr = LQR.random(2, 1, seed=0, radius=0.9)
    problem = dataclasses.replace(lqr.problem(), prior=LinearPrior(-lqr.k, std=0.3))
    obs = 0.1 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).to(problem.dtype)
    mode = problem.prior.act(obs)
    near = (mode + 0.05).clamp(-1, 1)
    actions = torch.stack((mode, near, mode), 1)
    noise = RowNoise.draw(5, torch.Generator().manual_seed(1))
    found = dict(gain_estimates(problem, obs, actions, horizons=(1, 4), lcb_coef=1.0, noise=noise))
    # At the optimum a deviation d costs d'(R + g B'PB)d, whatever the state.
    exact = -float(0.05**2 * (lqr.r + lqr.discount * lqr.b.T @ lqr.p @ lqr.b))
    assert abs(exact) > 1e-4
    for name in ("1 steps + critic", "4 steps + critic"):
        np.testing.assert_allclose(found[name], np.tile([exact, 0.0], (5, 1)), rtol=1e-6, atol=1e-9)
    # This critic takes |a|^2 off the value of the state.
    wanted = (mode**2 - near**2).numpy()
    np.testing.assert_allclose(found["critic"], np.hstack((wanted, 0 * wanted)), atol=1e-12)
    assert set(found) == {
        "critic",
        *(
            f"{h} steps {end}{bound}"
            for h in (1, 4)
            for end in ("+ critic", "alone")
            for bound in ("", ", low")
        ),
    }
