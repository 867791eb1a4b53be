import dataclasses

import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.magic import (
    MagicConfig,
    error_covariance,
    magic,
    partial_summands,
    uncorrected_share,
)
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from tests.off_policy.logs import logged, one_step


def test_partial_returns_run_from_the_direct_method_to_wdr():
    arrays = logged(estimand=Estimand(0.9))
    steps = arrays.steps
    partial = partial_summands(arrays, list(range(-1, steps))).sum(0)
    assert partial[0] == pytest.approx(arrays.value[:, 0].mean(), rel=1e-12)
    assert partial[-1] == pytest.approx(weighted_doubly_robust(arrays).point, rel=1e-12)
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    share = weight / weight.sum(0)
    j = 2
    previous = np.concatenate([np.full((40, 1), 1 / 40), share], 1)
    g = 0.9 ** np.arange(steps + 1)
    by_hand = sum(
        g[t]
        * (share[:, t] @ (arrays.reward - arrays.action_value)[:, t] + previous[:, t] @ arrays.value[:, t])
        for t in range(j + 1)
    )
    by_hand += g[j + 1] * share[:, j] @ arrays.value[:, j + 1]
    assert partial[j + 1] == pytest.approx(by_hand, rel=1e-12)


def test_magic_lies_between_its_parts_on_a_thinned_grid():
    arrays = logged(n=200, seed=4)
    estimate = magic(arrays, config=MagicConfig(max_lengths=4))
    partial, blend = estimate.details["partial"], estimate.details["blend"]
    assert estimate.details["lengths"][0] == -1
    assert estimate.details["lengths"][-1] == 5
    assert blend.sum() == pytest.approx(1.0)
    assert (blend >= 0).all()
    assert partial.min() <= estimate.point <= partial.max()
    assert estimate.per_episode.mean() == pytest.approx(estimate.point, rel=1e-10)


def test_one_step_lies_between_the_direct_method_and_wdr():
    one = one_step()
    low, high = sorted((one.value[:, 0].mean(), weighted_doubly_robust(one).point))
    assert low - 1e-12 <= magic(one).point <= high + 1e-12


def test_the_error_is_n_times_the_covariance_of_the_summands():
    summands = np.random.default_rng(0).normal(size=(30, 4))
    omega = error_covariance(summands)
    np.testing.assert_allclose(omega, 30 * np.cov(summands.T, ddof=1), rtol=1e-10)
    assert np.linalg.eigvalsh(omega).min() >= -1e-12


def test_the_share_of_the_value_runs_from_all_to_nothing():
    """Discounts 1, 0.9, 0.81, ... of six steps; after j = 1 two of them are corrected."""
    arrays = logged()
    discounts = 0.9 ** np.arange(6)
    found = uncorrected_share(arrays, [-1, 1, 5])
    np.testing.assert_allclose(found, [1.0, 1 - discounts[:2].sum() / discounts.sum(), 0.0], atol=1e-12)
    estimate = magic(arrays)
    lengths, blend = estimate.details["lengths"], estimate.details["blend"]
    assert estimate.details["value_share"] == pytest.approx(blend @ uncorrected_share(arrays, lengths))


def test_scaled_rewards_and_values_scale_it():
    arrays = logged()
    scaled = dataclasses.replace(
        arrays, reward=3 * arrays.reward, action_value=3 * arrays.action_value, value=3 * arrays.value
    )
    assert magic(scaled).point == pytest.approx(3 * magic(arrays).point, rel=1e-8)


def test_it_refuses_a_log_without_values():
    with pytest.raises(EstimandError, match="needs Q and V"):
        magic(dataclasses.replace(logged(), has_values=False))
