import numpy as np
import pytest

from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.marginal_moments import Moments, solve_moments
from mbrl.off_policy.estimators.marginal_steps import MarginalSteps
from mbrl.off_policy.log.landmarks import LandmarkBasis
from tests.off_policy.logs import generator, half_table_log

RNG = np.random.default_rng(0)
REWARD = np.array([1.0, 0.0])


def gathered(n: int = 40) -> tuple[MarginalSteps, LandmarkBasis, Moments]:
    _, dataset, policy, _ = half_table_log(n=n)
    steps = MarginalSteps.prepare(
        dataset, policy, Estimand(0.8), max_rows=10_000, action_samples=1, generator=generator()
    )
    basis = LandmarkBasis.fit(steps.now, count=12, shape="delta", is_discrete=True, generator=generator())
    return steps, basis, Moments.gather(steps, basis)


def test_moments_are_means_over_episodes_of_sums_over_steps():
    steps, basis, moments = gathered()
    (found,) = steps.features(basis)
    np.testing.assert_allclose(moments.matrix.sum(0), found.psi.T @ found.phi / 40, atol=1e-12)
    np.testing.assert_allclose(moments.payload.sum(0), found.psi.T @ steps.payload / 40, atol=1e-12)
    ((_, first),) = steps.starts(basis)
    np.testing.assert_allclose(moments.start.sum(0), first.mean(0), atol=1e-12)


def test_folds_are_alike_and_one_can_be_left_out():
    steps, _, moments = gathered()
    assert np.bincount(moments.fold).tolist() == [8] * 5
    means = [steps.returns[moments.fold == k].mean() for k in range(5)]
    assert np.ptp(means) < steps.returns.std()
    rest = moments.without(2)
    np.testing.assert_allclose(rest.matrix.sum(0), moments.matrix.sum(0) - moments.matrix[2], atol=1e-12)


def test_weights_match_the_moments_and_the_value_is_their_dual():
    """`alpha' payload` and `start' theta` are one number: both solve the same system, one transposed."""
    moments = gathered()[2]
    found = solve_moments(moments, REWARD, 0.0)
    assert np.abs(found.error).max() < 1e-10
    by_weights = moments.payload.sum(0)[:, 0] @ found.alpha
    assert moments.start.sum(0) @ found.theta == pytest.approx(by_weights, rel=1e-8)


def test_the_ridge_solution_is_that_of_the_normal_equations():
    matrix, start, payload = RNG.normal(size=(4, 4)), RNG.normal(size=4), RNG.normal(size=(4, 2))
    moments = Moments(matrix[None], payload[None], start[None], np.zeros(1, np.int64))
    found = solve_moments(moments, np.array([1.0, -0.5]), 0.1)
    gram = matrix @ matrix.T + 0.1 * np.linalg.norm(matrix, 2) ** 2 * np.eye(4)
    np.testing.assert_allclose(found.alpha, np.linalg.solve(gram, matrix @ start), rtol=1e-8)
    combined = payload @ np.array([1.0, -0.5])
    np.testing.assert_allclose(found.theta, matrix.T @ np.linalg.solve(gram, combined), rtol=1e-8)
    np.testing.assert_allclose(found.error, start - matrix.T @ found.alpha, rtol=1e-10)


def test_directions_that_are_rounding_say_nothing():
    matrix = np.diag([2.0, 1e-16])
    moments = Moments(matrix[None], np.ones((1, 2, 2)), np.ones((1, 2)), np.zeros(1, np.int64))
    found = solve_moments(moments, REWARD, 0.0)
    np.testing.assert_allclose(found.alpha, [0.5, 0.0])
    np.testing.assert_allclose(found.error, [0.0, 1.0])
