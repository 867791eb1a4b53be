import dataclasses

import numpy as np
import pytest
import scipy.stats

from mbrl.off_policy.log.diagnostics import effective_horizon, mean_ratio_z, pareto_k, ratio_diagnostics
from mbrl.off_policy.log.weights import WeightTransform
from tests.off_policy.logs import logged


def test_every_curve_equals_its_definition():
    arrays = logged(n=100)
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    found = ratio_diagnostics(arrays)
    np.testing.assert_allclose(found.ess, weight.sum(0) ** 2 / (weight**2).sum(0), rtol=1e-10)
    np.testing.assert_allclose(found.max_share, (weight / weight.sum(0)).max(0), rtol=1e-10)
    np.testing.assert_allclose(found.mean_weight, weight.mean(0), rtol=1e-10)
    live = (weight * arrays.alive).sum(0) / weight.sum(0)
    np.testing.assert_allclose(found.live_share, live, rtol=1e-10)
    ratio = np.exp(arrays.log_ratio[arrays.alive[:, 2], 2])
    z = (ratio.mean() - 1) / (ratio.std(ddof=1) / np.sqrt(ratio.size))
    assert found.mean_ratio_z[2] == pytest.approx(z, rel=1e-10)


def test_nothing_is_flagged_where_the_policies_agree():
    arrays = dataclasses.replace(logged(n=100), log_ratio=np.zeros((100, 6)))
    found = ratio_diagnostics(arrays)
    np.testing.assert_allclose(found.ess, 100)
    assert found.effective_horizon == 6
    assert found.weight_beyond == 0
    assert found.pareto_k == -np.inf
    assert (found.mean_ratio_z == 0).all()


def test_a_mismatch_shortens_the_effective_horizon():
    arrays = logged(n=100)
    found = ratio_diagnostics(dataclasses.replace(arrays, log_ratio=1.5 * arrays.log_ratio))
    horizon = found.effective_horizon
    assert 0 < horizon < 6
    g = 0.9 ** np.arange(6)
    assert found.weight_beyond == pytest.approx(g[horizon:].sum() / g.sum())
    assert effective_horizon(np.array([50.0, 29.0, 80.0]), 100) == 1


@pytest.mark.parametrize("shape", [0.3, 1.0])
def test_the_tail_shape_is_recovered_from_pareto_weights(shape):
    draws = scipy.stats.genpareto(shape).rvs(20_000, random_state=np.random.default_rng(0))
    assert pareto_k(np.log(draws)) == pytest.approx(shape, abs=0.12)


def test_light_tails_are_no_alarm():
    assert pareto_k(np.random.default_rng(0).normal(size=5000) * 0.1) < 0.5
    assert np.isnan(pareto_k(np.zeros(3)))


def test_a_density_of_the_wrong_scale_shows_in_the_mean_ratio():
    """Densities that refer to differently scaled actions differ by a constant factor."""
    log_ratio = np.random.default_rng(1).normal(-0.005, 0.1, (1000, 3))
    alive = np.ones((1000, 3), dtype=bool)
    assert np.abs(mean_ratio_z(log_ratio, alive)).max() < 3
    assert np.abs(mean_ratio_z(log_ratio + np.log(2.0), alive)).min() > 100


def test_what_a_transform_removes_is_reported_with_a_bound_of_its_bias():
    arrays = logged(n=100)
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    capped = np.minimum(weight, 1.1)
    found = ratio_diagnostics(arrays, WeightTransform(cap=1.1))
    alive = arrays.alive
    assert found.clipped_mass == pytest.approx(1 - (capped * alive).sum() / (weight * alive).sum())
    bound = (np.abs(weight - capped) * np.abs(arrays.reward) @ arrays.discounts[:-1]).mean()
    assert found.clip_bias_bound == pytest.approx(bound)
    assert ratio_diagnostics(arrays).clipped_mass == 0.0


def test_the_report_is_plain_json_values():
    found = ratio_diagnostics(logged(n=100)).to_json()
    assert len(found["ess"]) == 6
    assert all(isinstance(value, float) for value in found["ess"])
