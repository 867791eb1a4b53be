import dataclasses

import numpy as np
import pytest
import scipy.stats

from mbrl.off_policy.estimators.importance import importance_sampling, pdwis_terms
from mbrl.off_policy.statistics.bounds import Bootstrap, bootstrap_interval, student_interval
from tests.off_policy.logs import logged

VALUES = np.random.default_rng(0).uniform(0.0, 1.0, 400)


def test_the_student_interval_is_the_textbook_one():
    expected = scipy.stats.t.interval(0.95, 399, VALUES.mean(), scipy.stats.sem(VALUES))
    assert student_interval(VALUES).ends == pytest.approx(expected, rel=1e-12)


def test_bca_of_a_plain_mean_agrees_with_scipy():
    arrays = dataclasses.replace(logged(n=80, seed=3), log_ratio=np.zeros((80, 6)))
    returns = arrays.returns()
    interval = bootstrap_interval(pdwis_terms(arrays), returns.mean(), 80, Bootstrap(resamples=20_000))
    expected = scipy.stats.bootstrap(
        [returns], np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    width = expected.high - expected.low
    assert interval.ends == pytest.approx((expected.low, expected.high), abs=0.03 * width)
    assert interval.method.startswith("bca")


def test_one_dominant_episode_falls_back_to_percentiles():
    arrays = logged(n=60)
    log_ratio = arrays.log_ratio.copy()
    log_ratio[0, 0] += 30.0
    dominated = dataclasses.replace(arrays, log_ratio=log_ratio)
    interval = bootstrap_interval(pdwis_terms(dominated), 0.0, 60, Bootstrap())
    assert interval.method.startswith("percentile")


def test_the_default_is_a_bootstrap_from_fifty_episodes_on():
    assert importance_sampling(logged(n=49), kind="wis").method_of_ci == "Student t"
    assert importance_sampling(logged(n=50), kind="wis").method_of_ci.startswith("bca")
