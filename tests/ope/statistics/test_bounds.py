import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from mbrl.ope.estimators.doubly_robust import wdr_terms
from mbrl.ope.estimators.importance import importance_sampling, pdwis_terms
from mbrl.ope.statistics.bounds import (
    Bootstrap,
    bernstein_lower,
    bootstrap_interval,
    episode_values,
    hcope_lower,
    hoeffding_lower,
    student_interval,
    student_lower,
)
from mbrl.ope.statistics.self_normalised import bootstrap_values, draw_counts, influence_values, jackknife
from tests.ope.logs import logged

VALUES = np.random.default_rng(0).uniform(0.0, 1.0, 400)


def naive_pdwis(arrays) -> float:
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    share = weight / weight.sum(0)
    return float(((share * arrays.reward).sum(0) * arrays.discounts[:-1]).sum())


def test_the_student_interval_is_the_textbook_one():
    expected = scipy.stats.t.interval(0.95, 399, VALUES.mean(), scipy.stats.sem(VALUES))
    assert student_interval(VALUES).ends == pytest.approx(expected, rel=1e-12)
    one_sided = VALUES.mean() - scipy.stats.t.ppf(0.95, 399) * scipy.stats.sem(VALUES)
    assert student_lower(VALUES, error=0.05) == pytest.approx(one_sided, rel=1e-12)


def test_hoeffding_by_hand_and_its_width_halves_with_four_times_the_data():
    bound = hoeffding_lower(VALUES, error=0.05, value_range=(0.0, 1.0))
    assert bound == pytest.approx(VALUES.mean() - math.sqrt(math.log(20) / 800), rel=1e-12)
    four = np.tile(VALUES, 4)
    assert (four.mean() - hoeffding_lower(four, error=0.05, value_range=(0.0, 1.0))) == pytest.approx(
        (VALUES.mean() - bound) / 2, rel=1e-12
    )


def test_bernstein_by_hand():
    log_term = math.log(40)
    expected = VALUES.mean() - math.sqrt(2 * VALUES.var(ddof=1) * log_term / 400) - 7 * log_term / (3 * 399)
    assert bernstein_lower(VALUES, error=0.05, value_range=(0.0, 1.0)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bound", [hoeffding_lower, bernstein_lower])
def test_a_bound_needs_a_declared_range_that_holds(bound):
    with pytest.raises(ValueError, match="declared range"):
        bound(VALUES, error=0.05, value_range=(0.0, 0.5))
    with pytest.raises(ValueError, match="finite declared range"):
        bound(VALUES, error=0.05, value_range=(0.0, math.inf))


def test_hcope_is_bernstein_where_nothing_is_cut():
    rng = np.random.default_rng(0)
    for least in (0.0, -3.0):
        found = hcope_lower(VALUES, error=0.05, rng=rng, least=least, threshold=2.0 - least)
        expected = bernstein_lower(VALUES, error=0.05, value_range=(least, 2.0))
        assert found == pytest.approx(expected, rel=1e-12)


def test_hcope_matches_its_double_sum_and_beats_bernstein_under_heavy_tails():
    heavy = np.random.default_rng(1).pareto(1.5, 2000)
    cut, n, log_term = np.minimum(heavy, 5.0), 2000, math.log(40)
    double_sum = 2 * n * np.square(cut).sum() - 2 * cut.sum() ** 2
    expected = cut.mean() - 7 * 5 * log_term / (3 * (n - 1)) - math.sqrt(log_term / (n - 1) * double_sum) / n
    rng = np.random.default_rng(0)
    found = hcope_lower(heavy, error=0.05, rng=rng, least=0.0, threshold=5.0)
    assert found == pytest.approx(expected, rel=1e-10)
    chosen = hcope_lower(heavy, error=0.05, rng=rng, least=0.0)
    assert chosen > bernstein_lower(heavy, error=0.05, value_range=(0.0, float(heavy.max()))) + 0.1
    with pytest.raises(ValueError, match="least value"):
        hcope_lower(heavy - 1, error=0.05, rng=rng, least=0.0)


def test_bounds_refuse_self_normalised_estimates():
    arrays = logged()
    for kind in ("wis", "pdwis"):
        with pytest.raises(TypeError, match="not a mean of independent values"):
            episode_values(importance_sampling(arrays, kind=kind))
    assert episode_values(importance_sampling(arrays, kind="pdis")).size == 40


def test_the_bootstrap_renormalises_every_draw():
    arrays = logged(n=60)
    counts = draw_counts(60, 20, np.random.default_rng(3))
    found = bootstrap_values(pdwis_terms(arrays), counts)
    for draw, value in zip(counts.astype(int), found, strict=True):
        resampled = arrays.select(np.repeat(np.arange(60), draw))
        assert value == pytest.approx(naive_pdwis(resampled), rel=1e-10)


def test_the_jackknife_in_closed_form_equals_the_loop():
    arrays = logged(n=20)
    for terms in (pdwis_terms, wdr_terms):
        without, largest = jackknife(terms(arrays), 20)
        assert 0 < largest < 1
        for i in range(20):
            rest = arrays.select(np.delete(np.arange(20), i))
            assert without[i] == pytest.approx(influence_values(terms(rest), 19).mean(), rel=1e-10), terms


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
