import dataclasses

import numpy as np
import pytest

from mbrl.off_policy.log.diagnostics import pareto_k, ratio_diagnostics
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.off_policy.log.weights import WeightTransform
from tests.off_policy.logs import logged


def test_the_numbers_are_the_worst_of_any_step():
    arrays = logged(n=100)
    found, curves = WeightEvidence.of_log(arrays), ratio_diagnostics(arrays)
    assert found.ess == pytest.approx(curves.ess.min(), rel=1e-12)
    assert found.largest_share == pytest.approx(curves.max_share.max(), rel=1e-12)
    assert found.pareto_k == curves.pareto_k


def test_a_step_in_the_middle_that_one_episode_carries_is_seen():
    """It comes back: the ratio of the next step undoes that of the one before."""
    arrays = logged(n=100, end=0.0)
    log_ratio = np.zeros((100, 6))
    log_ratio[0, 2], log_ratio[0, 3] = 20.0, -20.0
    found = WeightEvidence.of_log(dataclasses.replace(arrays, log_ratio=log_ratio))
    assert found.ess == pytest.approx(1.0, abs=1e-6)
    assert found.largest_share == pytest.approx(1.0, abs=1e-6)


def test_changes_of_the_weights_are_counted():
    arrays = logged(n=100)
    capped = WeightEvidence.of_log(arrays, WeightTransform(cap=1.0))
    assert capped.ess > WeightEvidence.of_log(arrays).ess


def test_one_weight_for_each_episode():
    weight = np.array([4.0, 1.0, -1.0, 2.0])
    found = WeightEvidence.of_weights(weight)
    assert found.ess == pytest.approx(36 / 22)
    assert found.largest_share == 0.5
    assert np.isnan(found.pareto_k)  # of four weights none is a tail
    assert WeightEvidence.of_weights(np.zeros(3)).problem() is not None
    many = np.random.default_rng(0).pareto(0.8, 2000) + 1
    assert WeightEvidence.of_weights(many).pareto_k == pareto_k(np.log(many))


@pytest.mark.parametrize(
    ("ess", "share", "k", "flag"),
    [
        (0.0, 1.0, np.nan, "all_weights_zero"),
        (29.9, 0.05, 0.1, "low_ess"),
        (51.0, 0.11, 0.1, "dominated"),
        (51.0, 0.09, 1.95, "heavy_tail"),
        (51.0, 0.09, 0.7, "heavy_tail"),
        (51.0, 0.09, 0.69, None),
        (30.0, 0.1, -np.inf, None),
        (30.0, 0.1, np.nan, None),
    ],
)
def test_each_rule_has_its_flag(ess: float, share: float, k: float, flag: str | None):
    problem = WeightEvidence(ess, share, k).problem()
    assert (None if problem is None else problem[1]) == flag


@pytest.mark.parametrize(("gap", "flag"), [(2.1, "weights_off_one"), (-2.1, "weights_off_one"), (-1.9, None)])
def test_weights_that_are_not_normalised_must_average_one(gap: float, flag: str | None):
    evidence = WeightEvidence(51.0, 0.09, 0.3, 1.0 + 0.1 * gap, gap)
    assert evidence.problem() is None
    problem = evidence.problem(is_normalised=False)
    assert (None if problem is None else problem[1]) == flag


def test_the_mean_weight_and_its_distance_from_one():
    arrays = logged(n=100)
    weight = np.exp(arrays.log_ratio.sum(1))
    found = WeightEvidence.of_log(arrays)
    assert found.mean_weight == pytest.approx(weight.mean())
    assert found.mean_gap == pytest.approx((weight.mean() - 1) / (weight.std(ddof=1) / 10))
    same = WeightEvidence.of_log(dataclasses.replace(arrays, log_ratio=np.zeros((100, 6))))
    assert same.problem(is_normalised=False) is None
