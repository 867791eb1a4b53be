import numpy as np
import pytest

from mbrl.off_policy.estimators.importance import pdwis_terms
from mbrl.off_policy.estimators.weighted_doubly_robust import wdr_terms
from mbrl.off_policy.statistics.self_normalised import (
    Term,
    bootstrap_values,
    draw_counts,
    influence_values,
    is_dominated,
    jackknife,
    self_normalised_se,
)
from tests.off_policy.logs import logged, select


def naive_pdwis(arrays) -> float:
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    share = weight / weight.sum(0)
    return float(((share * arrays.reward).sum(0) * arrays.discounts[:-1]).sum())


def test_the_bootstrap_renormalises_every_draw():
    arrays = logged(n=60)
    counts = draw_counts(60, 20, np.random.default_rng(3))
    found = bootstrap_values(pdwis_terms(arrays), counts)
    for draw, value in zip(counts.astype(int), found, strict=True):
        resampled = select(arrays, np.repeat(np.arange(60), draw))
        assert value == pytest.approx(naive_pdwis(resampled), rel=1e-10)


def test_the_jackknife_in_closed_form_equals_the_loop():
    arrays = logged(n=20)
    for terms in (pdwis_terms, wdr_terms):
        without, largest = jackknife(terms(arrays), 20)
        assert 0 < largest < 1
        for i in range(20):
            rest = select(arrays, np.delete(np.arange(20), i))
            assert without[i] == pytest.approx(influence_values(terms(rest), 19).mean(), rel=1e-10), terms


def test_influence_values_are_the_derivative_in_the_weight_of_an_episode():
    """Two columns of three episodes; one more copy of an episode moves the sum by its influence over n."""
    weight = np.array([[1.0, 2.0], [3.0, 1.0], [2.0, 2.0]])
    payload, factor = np.array([[4.0, 1.0], [0.0, 2.0], [1.0, 5.0]]), np.array([1.0, 0.5])

    def value(counts: np.ndarray) -> float:
        drawn = counts[:, None] * weight
        return float(((drawn * payload).sum(0) / drawn.sum(0)) @ factor)

    def terms():
        yield Term(weight / weight.sum(0), payload, factor)

    found, whole = influence_values(terms, 3), value(np.ones(3))
    assert found.mean() == pytest.approx(whole, rel=1e-12)
    for i in range(3):
        more = np.ones(3)
        more[i] += 1e-6
        assert (value(more) - whole) / 1e-6 == pytest.approx((found[i] - whole) / 3, rel=1e-4)
    expected = np.sqrt(((found - whole) ** 2).sum()) / 3
    assert self_normalised_se(found) == pytest.approx(expected, rel=1e-12)


def test_counts_are_resamples_of_as_many_episodes():
    counts = draw_counts(7, 50, np.random.default_rng(0))
    assert counts.shape == (50, 7)
    assert (counts.sum(1) == 7).all()


def test_an_episode_with_nearly_all_weight_dominates():
    assert is_dominated(0.995)
    assert not is_dominated(0.5)
