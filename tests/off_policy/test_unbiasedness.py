"""Bias, variance and coverage over many datasets."""

import numpy as np
import pytest

from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from mbrl.off_policy.statistics.bounds import Bootstrap
from tests.off_policy.tabular import MDP, Array, arrays_of, random_mdp, random_policy, simulate

ESTIMAND = Estimand(0.95, horizon=5)


def setting(seed: int) -> tuple[MDP, Array, Array, float, Array]:
    mdp = random_mdp(seed)
    behaviour = random_policy(seed + 10, mdp)
    evaluated = 0.5 * behaviour + 0.5 * random_policy(seed + 20, mdp)
    q = mdp.q_finite(evaluated, 0.95, 5)
    return mdp, behaviour, evaluated, mdp.value(evaluated, ESTIMAND), q


def test_unnormalised_estimators_are_unbiased():
    """20 episodes x 2000 datasets in one log: the mean over datasets is the mean over all episodes."""
    mdp, behaviour, evaluated, truth, q = setting(0)
    log = simulate(mdp, behaviour, 40_000, 5, np.random.default_rng(0))
    arrays = arrays_of(log, evaluated, behaviour, ESTIMAND, q)
    for kind in ("is", "pdis"):
        estimate = importance_sampling(arrays, kind=kind)
        assert abs(estimate.point - truth) < 4 * estimate.se, kind
        wrong = truth + 0.1 * abs(truth)
        assert abs(estimate.point - wrong) > 4 * estimate.se, kind
    dr = doubly_robust(arrays)
    assert abs(dr.point - truth) < 4 * dr.se
    biased = doubly_robust(arrays_of(log, evaluated, behaviour, ESTIMAND, q + 0.5))
    assert abs(biased.point - truth) < 4 * biased.se  # any Q will do
    assert dr.se < 0.7 * importance_sampling(arrays, kind="pdis").se


def test_the_bias_of_wis_shrinks_with_the_number_of_episodes():
    mdp, behaviour, evaluated, truth, _ = setting(1)
    rng, bias = np.random.default_rng(0), {}
    for n in (5, 80):
        log = simulate(mdp, behaviour, 1500 * n, 5, rng)
        whole = arrays_of(log, evaluated, behaviour, ESTIMAND)
        weight = np.exp(whole.log_ratio.sum(1)).reshape(1500, n)
        values = (weight * whole.returns().reshape(1500, n)).sum(1) / weight.sum(1)
        bias[n] = (abs(values.mean() - truth), values.std() / np.sqrt(1500))
    assert bias[5][0] > 4 * bias[5][1]
    assert bias[80][0] < bias[5][0] / 4 + 3 * bias[80][1]


@pytest.mark.slow
def test_intervals_cover_at_their_level():
    mdp, behaviour, evaluated, truth, q = setting(2)
    rng = np.random.default_rng(5)
    hits = dict.fromkeys(("pdis t", "dr t", "pdwis bca", "pdwis percentile", "wdr bca"), 0)
    for _ in range(400):
        log = simulate(mdp, behaviour, 200, 5, rng)
        arrays = arrays_of(log, evaluated, behaviour, ESTIMAND, q)
        estimates = {
            "pdis t": importance_sampling(arrays, kind="pdis"),
            "dr t": doubly_robust(arrays),
            "pdwis bca": importance_sampling(arrays, kind="pdwis", bootstrap=Bootstrap(resamples=800)),
            "pdwis percentile": importance_sampling(
                arrays, kind="pdwis", bootstrap=Bootstrap(method="percentile", resamples=800)
            ),
            "wdr bca": weighted_doubly_robust(arrays, bootstrap=Bootstrap(resamples=800)),
        }
        for name, estimate in estimates.items():
            hits[name] += estimate.ci95[0] <= truth <= estimate.ci95[1]
    for name, count in hits.items():
        assert 0.92 <= count / 400 <= 0.98, (name, count)
