"""Differences of policies: shared parts cancel, errors are those of the differences."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.judgement.baseline import baseline_reasons, behaviour_baseline, policy_baseline
from mbrl.off_policy.judgement.paired import Evidence, difference, gap_in_errors, paired_z, ratio_difference
from tests.off_policy.logs import logged
from tests.off_policy.reports import report


def test_without_members_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=50)
    first, second = shared + 0.1 * rng.normal(size=50) + 1.0, shared
    found = difference(Evidence(first), Evidence(second))
    exact = scipy.stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.ends == pytest.approx((exact.low, exact.high), rel=1e-10)
    assert found.se < 0.05  # what both share has cancelled


def test_members_are_paired_and_their_spread_is_not_divided():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=5)
    starts = rng.normal(size=40)
    first = Evidence(starts + 2.0, 2.0 + starts.mean() + shared)
    second = Evidence(starts, starts.mean() + shared)
    same = difference(first, second)
    assert same.point == pytest.approx(2.0)
    assert same.se == pytest.approx(0.0, abs=1e-12)
    logged_returns = Evidence(rng.normal(size=40))
    against = difference(first, logged_returns)
    within = np.var(first.per_episode - logged_returns.per_episode, ddof=1) / 40
    se = np.sqrt(np.var(shared, ddof=1) + within)
    assert against.se == pytest.approx(se, rel=1e-10)
    half = scipy.stats.t.ppf(0.975, 4) * se
    assert against.ends == pytest.approx((against.point - half, against.point + half), rel=1e-10)
    reverse = difference(logged_returns, first)
    assert reverse.ends == pytest.approx((-against.ends[1], -against.ends[0]), rel=1e-10)


def test_evidence_of_another_size_is_not_paired():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=30), rng.normal(size=20)
    found = difference(Evidence(first), Evidence(second))
    se = np.sqrt(first.var(ddof=1) / 30 + second.var(ddof=1) / 20)
    assert found.se == pytest.approx(se)
    assert found.method.startswith("unpaired")
    few, fewer = Evidence(first, first[:5]), Evidence(first, first[:3])
    against = difference(few, fewer)  # ensembles of two sizes: their variances add, the smaller one counts
    assert against.se == pytest.approx(np.sqrt(first[:5].var(ddof=1) + first[:3].var(ddof=1)))
    assert against.ends[1] == pytest.approx(scipy.stats.t.ppf(0.975, 2) * against.se)


def test_two_estimators_share_episodes_but_no_members():
    rng = np.random.default_rng(3)
    episodes, members = rng.normal(size=50), rng.normal(size=5)
    first, second = Evidence(episodes + 2.0, members), Evidence(episodes, members)
    assert gap_in_errors(first, second) == pytest.approx(2.0 / np.sqrt(2 * members.var(ddof=1)))
    plain = Evidence(rng.normal(size=50))
    paired = scipy.stats.ttest_rel(first.per_episode, plain.per_episode)
    assert gap_in_errors(Evidence(first.per_episode), plain) == pytest.approx(abs(paired.statistic))
    assert gap_in_errors(plain, plain) == 0.0


def test_one_episode_has_no_interval():
    found = difference(Evidence(np.ones(1)), Evidence(np.zeros(1)))
    assert found.reported(ci_corrected=None, why_not=None).ci95 == (None, None)


def test_the_ratio_difference_is_pdwis_less_the_logged_mean():
    arrays = logged(n=80)
    found = ratio_difference(arrays, None)
    pdwis = importance_sampling(arrays, kind="pdwis")
    assert found.point == pytest.approx(pdwis.point - arrays.returns().mean(), rel=1e-10)
    assert found.ends[0] < found.point < found.ends[1]
    wide = ratio_difference(arrays, None, level=0.99)
    assert wide.ends[0] < found.ends[0]
    assert wide.ends[1] > found.ends[1]


def test_a_policy_does_not_differ_from_itself():
    arrays = logged(n=80)
    same = ratio_difference(arrays, arrays)
    assert same.point == pytest.approx(0.0, abs=1e-12)
    assert same.ends == pytest.approx((0.0, 0.0), abs=1e-12)
    plain = dataclasses.replace(arrays, log_ratio=np.zeros(arrays.reward.shape))
    assert ratio_difference(plain, None).ends == pytest.approx((0.0, 0.0), abs=1e-12)


def test_the_behaviour_as_baseline_is_the_mean_logged_return_in_units_of_the_estimand():
    arrays = logged(n=60, estimand=Estimand(0.9, horizon=6, normalised=True))
    evidence = {"pdwis": Evidence.of(importance_sampling(arrays, kind="pdwis"))}
    found = behaviour_baseline(arrays, evidence, arrays, corrected=0.99)
    assert found.value == pytest.approx(0.1 * arrays.returns().mean(), rel=1e-12)
    entry = found.difference("pdwis")
    assert entry.difference == pytest.approx(evidence["pdwis"].point - found.value, rel=1e-9)
    assert entry.ends("ci_corrected")[0] < entry.ends("ci95")[0]
    assert baseline_reasons(found, arrays).keys() >= {"baseline.estimator"}
    endless = Estimand(0.9, normalised=True)
    cut = dataclasses.replace(arrays, truncated=~arrays.terminated, has_values=True, estimand=endless)
    assert cut.truncated.any()
    hidden = behaviour_baseline(cut, evidence, arrays)
    assert (hidden.value, hidden.paired) == (None, None)
    assert set(baseline_reasons(hidden, cut).values()) == {"time-outs cut the logged returns"}


def test_another_policy_as_baseline_says_which_of_its_families_do_not_count():
    candidate, other = Evidence(np.arange(4.0)), Evidence(np.arange(4.0) - 1)
    pair = ({"pdwis": candidate, "fqe": candidate, "dm": candidate}, {"pdwis": other, "fqe": other})
    found = policy_baseline(report((2.0, 3.0), None).named("other"), pair, None)
    assert found.policy == "other"
    assert found.estimator == "pdwis"
    assert found.value == 2.5
    assert found.paired.keys() == {"pdwis", "fqe"}
    assert found.paired["fqe"].why_not == "by hand"
    assert found.paired["pdwis"].why_not is None
    assert found.paired["pdwis"].difference == 1.0
    nothing = policy_baseline(report().named("other"), pair, None)
    assert nothing.value is None
    assert baseline_reasons(nothing, logged())["baseline.value"] == "no family of the baseline counts"


def test_estimators_of_one_policy_are_compared_by_pairs_of_the_primary_ones():
    rng = np.random.default_rng(4)
    first, second = Evidence(rng.normal(size=50)), Evidence(rng.normal(size=50) + 1.0)
    evidence = {"pdwis": first, "fqe": second, "dm": Evidence(second.per_episode + 100.0)}
    assert paired_z(evidence) == gap_in_errors(first, second)
    assert paired_z({"pdwis": first}) is None
