import itertools
import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from mbrl.off_policy.judgement.benchmark.metrics import (
    Metric,
    absolute_error,
    false_alarms,
    kendall,
    missed_alarms,
    normalised_regret,
    policy_interval,
    regret_at,
    sharpe_ratio_at,
    spearman,
)

TRUTH = [1.0, 2.0, 3.0, 4.0, 5.0]
ROWS = st.lists(
    st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=12, unique_by=lambda row: row[0]
)


def test_rank_correlations_worked_by_hand():
    # ranks of the estimates: 2, 1, 3, 5, 4; squared differences 1 + 1 + 0 + 1 + 1
    swapped = [20.0, 10.0, 30.0, 50.0, 40.0]
    assert spearman(TRUTH, swapped).value == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert kendall(TRUTH, swapped).value == pytest.approx((8 - 2) / 10)
    # one tie among the estimates: 5 of the 6 pairs remain, all concordant; tau-b = 5 / sqrt(6 * 5)
    tied = [1.0, 1.0, 2.0, 3.0]
    assert kendall(TRUTH[:4], tied).value == pytest.approx(5 / math.sqrt(30))
    # mean ranks 1.5, 1.5, 3, 4 against 1..4: covariance 4.5, variances 5 and 4.5
    assert spearman(TRUTH[:4], tied).value == pytest.approx(4.5 / math.sqrt(5 * 4.5))


def test_spearman_is_that_of_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, estimate = rng.integers(0, 6, (2, 9)).astype(np.float64)
        expected = scipy.stats.spearmanr(truth, estimate).statistic
        assert spearman(truth, estimate).value == pytest.approx(expected)


def test_the_absolute_error_is_on_the_scale_of_the_true_values_and_clipped_above():
    # truth on [0, 1]: 0, .25, .5, .75, 1; estimates there: 0.25, -1, 0.5, 1, 100 -> 2
    estimate = [2.0, -3.0, 3.0, 5.0, 401.0]
    assert absolute_error(TRUTH, estimate).value == pytest.approx((0.25 + 1.25 + 0 + 0.25 + 1) / 5)


def test_regret_is_what_the_best_of_the_chosen_lacks():
    estimate = [0.0, 9.0, 8.0, 7.0, 1.0]
    assert [regret_at(TRUTH, estimate, k=k, is_normalised=False).value for k in range(1, 6)] == [
        3,
        2,
        1,
        0,
        0,
    ]
    assert normalised_regret(TRUTH, estimate).value == 0.75
    assert regret_at(TRUTH, [-math.inf, 9.0, -math.inf, -math.inf, -math.inf], k=2).why_not is not None


@given(ROWS)
def test_regret_never_rises_with_k_and_ends_at_0(rows: list[tuple[int, int]]):
    truth, estimate = zip(*rows, strict=True)
    regrets = [regret_at(truth, estimate, k=k).value for k in range(1, len(rows) + 1)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(regrets))
    assert regrets[-1] == 0.0
    assert all(0.0 <= regret <= 1.0 for regret in regrets)


def test_ties_at_the_edge_of_the_choice_are_flagged_and_broken_by_order():
    estimate = [1.0, 2.0, 2.0, 0.0, 0.0]
    first = regret_at(TRUTH, estimate, k=1, is_normalised=False)
    assert (first.value, first.is_tied) == (3.0, True)
    both = regret_at(TRUTH, estimate, k=2, is_normalised=False)
    assert (both.value, both.is_tied) == (2.0, False)


def test_the_sharpe_ratio_is_the_gain_over_the_spread_of_what_was_tried():
    estimate = [1.0, 2.0, 3.0, 5.0, 4.0]  # the two highest have the values 4 and 5
    assert sharpe_ratio_at(TRUTH, estimate, k=2, baseline=3.0).value == pytest.approx(2 / math.sqrt(0.5))
    assert sharpe_ratio_at(TRUTH, estimate, k=2, baseline=9.0).value == 0.0
    assert "no spread" in str(sharpe_ratio_at(TRUTH, estimate, k=1, baseline=0.0).why_not)
    assert "same true value" in str(sharpe_ratio_at([1, 1, 0], [3, 2, 1], k=2, baseline=0.0).why_not)


def test_alarms_are_shares_of_the_truly_safe_and_the_truly_unsafe():
    estimate = [5.0, 1.0, 1.0, 4.0, 5.0]  # safe from 3 on: 3, 4, 5; of these 3 is judged unsafe
    assert false_alarms(TRUTH, estimate, threshold=3.0).value == pytest.approx(1 / 3)
    assert missed_alarms(TRUTH, estimate, threshold=3.0).value == 0.5
    assert false_alarms(TRUTH, estimate, threshold=9.0).why_not == "no policy is safe"
    assert missed_alarms(TRUTH, estimate, threshold=0.0).why_not == "every policy is safe"


@pytest.mark.parametrize("metric", [spearman, kendall])
def test_a_constant_has_no_rank_and_says_so(metric):
    for truth, estimate in (([1, 1], [1, 2]), ([1, 2], [1, 1]), ([1], [1])):
        found = metric(truth, estimate)
        assert math.isnan(found.value)
        assert found.why_not
        assert found.to_json()["value"] is None


def test_undefined_scales_say_so():
    assert absolute_error([2, 2], [1, 2]).why_not == "all policies have the same true value"
    assert normalised_regret([2, 2], [1, 2]).why_not == "all policies have the same true value"
    assert absolute_error([1, 2], [1, -math.inf]).why_not == "an estimate is missing"
    with pytest.raises(ValueError, match="does not go with"):
        Metric(math.nan)


def test_bad_rows_are_refused():
    with pytest.raises(ValueError, match="one length"):
        spearman([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="leave such policies out"):
        spearman([1, 2], [1, math.nan])


def test_the_interval_over_policies_is_that_of_a_naive_loop():
    truth = np.arange(12.0)
    estimate = truth + np.random.default_rng(0).normal(size=12) * 4
    interval = policy_interval(spearman, truth, estimate, rng=np.random.default_rng(1), resamples=200)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 12, (200, 12))
    draws = [spearman(truth[row], estimate[row]).value for row in rows]
    np.testing.assert_allclose(interval.ends, np.quantile(draws, [0.025, 0.975]))
    few = partial(false_alarms, threshold=11.0)  # one safe policy: absent from a third of the resamples
    assert "undefined" in policy_interval(few, truth, estimate, rng=rng).method


def test_without_skill_the_spread_of_spearman_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    draws = [spearman(np.arange(11.0), rng.permutation(np.arange(11.0))).value for _ in range(2000)]
    assert np.std(draws) == pytest.approx(1 / math.sqrt(10), rel=0.05)
