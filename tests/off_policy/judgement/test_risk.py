"""Weighted distributions of returns, the worst part of them, and events."""

import dataclasses

import numpy as np
import pytest
import scipy.stats

from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.judgement.risk import RiskQuestion, behaviour_risk, ratio_risk, rollout_risk
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.statistics.distribution import ReturnDistribution, cvar_payload
from mbrl.ops.shares import wilson_interval
from tests.off_policy.logs import logged

TERMINATION = RiskQuestion()


def random_arrays(*, seed: int, discount: float = 0.9, n: int = 40, spread: float = 1.0) -> OPEArrays:
    arrays = logged(n, seed=seed, estimand=Estimand(discount, horizon=6))
    return dataclasses.replace(arrays, log_ratio=spread * arrays.log_ratio)


def brute_cvar(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Mean of the lowest `share` of the mass, an atom at a time."""
    left, total = share, 0.0
    for value, weight in sorted(zip(values, weights / weights.sum(), strict=True)):
        taken = min(weight, left)
        total, left = total + taken * value, left - taken
    return total / share


def test_the_boundary_atom_is_split() -> None:
    even = ReturnDistribution.make(np.array([3.0, 1.0, 2.0, 4.0]), np.ones(4))
    assert even.cvar(0.5) == pytest.approx(1.5)
    assert even.cvar(0.375) == pytest.approx((0.25 * 1 + 0.125 * 2) / 0.375)  # half of the second atom
    assert even.cvar(0.1) == 1.0  # less than one atom
    assert even.cvar(1.0) == pytest.approx(2.5)
    assert even.quantile(0.25) == 1.0
    assert even.quantile(0.26) == 2.0


@pytest.mark.parametrize("share", [0.05, 0.1, 0.37, 1.0])
def test_cvar_equals_the_greedy_sum_and_the_payload(share: float) -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.integers(-5, 5, 40).astype(float), rng.random(40)  # with ties
    found = ReturnDistribution.make(values, weights)
    assert found.cvar(share) == pytest.approx(brute_cvar(values, weights, share), rel=1e-12)
    payload = cvar_payload(values, found.quantile(share), share)
    assert weights @ payload / weights.sum() == pytest.approx(found.cvar(share), rel=1e-12)
    assert found.mean() == pytest.approx(weights @ values / weights.sum(), rel=1e-12)


def test_cvar_of_many_normal_draws_is_the_closed_form() -> None:
    draws = np.random.default_rng(1).normal(size=200_000)
    exact = -scipy.stats.norm.pdf(scipy.stats.norm.ppf(0.1)) / 0.1
    assert ReturnDistribution.make(draws, np.ones(draws.size)).cvar(0.1) == pytest.approx(exact, abs=0.02)


def test_the_plain_form_is_clipped_and_ascends() -> None:
    found = ReturnDistribution.make(np.arange(4.0), np.array([1.0, 3.0, 2.0, 0.5]), is_normalised=False)
    assert found.cdf.tolist() == [0.25, 1.0, 1.0, 1.0]
    short = ReturnDistribution.make(np.arange(2.0), np.array([0.5, 0.5]), is_normalised=False)
    assert short.cdf.tolist() == [0.25, 0.5]
    assert short.quantile(0.9) == 1.0


def test_without_discount_only_the_first_reward_counts() -> None:
    arrays = random_arrays(seed=2, discount=0.0)
    weights = np.exp(arrays.log_ratio.sum(1))
    found = ReturnDistribution.make(arrays.returns(), weights)
    assert found.mean() == pytest.approx(weights @ arrays.reward[:, 0] / weights.sum(), rel=1e-12)
    assert np.isfinite(ratio_risk(arrays, TERMINATION).cvar10)


def test_the_mean_of_the_distribution_is_wis() -> None:
    arrays = random_arrays(seed=3, discount=0.9)
    found = ReturnDistribution.make(arrays.returns(), np.exp(arrays.log_ratio.sum(1)))
    assert found.mean() == pytest.approx(importance_sampling(arrays, kind="wis").point, rel=1e-12)


def test_an_event_is_a_reward_at_the_end_of_the_episode() -> None:
    """P(termination) equals WIS of an undiscounted reward of 1 on the terminating step."""
    arrays = random_arrays(seed=4, discount=1.0, n=80)
    reward = np.zeros(arrays.reward.shape)
    reward[np.arange(len(arrays)), arrays.length - 1] = arrays.terminated
    as_reward = dataclasses.replace(arrays, reward=reward)
    wis, risk = importance_sampling(as_reward, kind="wis"), ratio_risk(arrays, TERMINATION)
    assert risk.p_violation == pytest.approx(wis.point, rel=1e-12)
    low, high = wilson_interval(wis.point, wis.n_eff, level=0.95)
    ends = (min(low, max(0.0, wis.ci95[0])), max(high, min(1.0, wis.ci95[1])))
    assert risk.p_violation_ci95 == pytest.approx(ends, rel=1e-12)


def test_an_event_that_was_never_seen_is_not_impossible() -> None:
    arrays = random_arrays(seed=5, n=100)
    risk = behaviour_risk(arrays, RiskQuestion("below", -1e9, 0.1))
    assert risk.p_violation == 0.0
    low, high = risk.p_violation_ci95
    assert low == 0.0
    assert high == pytest.approx(1.959964**2 / (100 + 1.959964**2), rel=1e-5)  # Wilson's at 0 of 100


def test_the_behaviour_has_the_shares_of_the_log() -> None:
    arrays = random_arrays(seed=6, n=60)
    risk = behaviour_risk(arrays, TERMINATION)
    assert risk.p_violation == pytest.approx(arrays.terminated.mean())
    assert risk.cvar10 == pytest.approx(np.sort(arrays.returns())[:6].mean())
    assert risk.n_eff == pytest.approx(60)


def test_weights_on_one_episode_are_not_valid() -> None:
    arrays = random_arrays(seed=7, n=60, spread=8.0)
    risk = ratio_risk(arrays, TERMINATION)
    assert not risk.valid
    assert "effective episodes" in risk.why_not


def test_rollouts_give_the_mean_over_members_with_their_spread() -> None:
    returns = np.random.default_rng(8).normal(size=(5, 400)) + np.arange(5)[:, None]
    ended = np.zeros((5, 400), dtype=bool)
    ended[0, :40] = True
    risk = rollout_risk(returns, ended, TERMINATION, why_not=None)
    assert risk.p_violation == pytest.approx(0.02)
    assert risk.valid
    by_member = [np.sort(row)[:40].mean() for row in returns]
    assert risk.cvar10 == pytest.approx(np.mean(by_member))
    half = scipy.stats.t.ppf(0.975, 4) * np.std(by_member, ddof=1)
    low, high = risk.cvar10_ci95
    assert high - low > 2 * half  # what the starts add comes on top
    assert high - low == pytest.approx(2 * half, rel=0.02)
    assert not rollout_risk(returns, ended, TERMINATION, why_not="it leaves the data").valid


def test_a_wider_level_is_wider() -> None:
    arrays = random_arrays(seed=9, n=200, spread=0.1)
    narrow, wide = (ratio_risk(arrays, TERMINATION, level=level) for level in (0.95, 0.99))
    assert wide.p_violation_ci95[1] > narrow.p_violation_ci95[1]
    assert wide.cvar10_ci95[0] < narrow.cvar10_ci95[0]


@pytest.mark.parametrize(
    "text", ["", "termination", "termination:x", "termination:0", "termination:2", "below:1", "above:1:0.1"]
)
def test_questions_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        RiskQuestion.parse(text)


def test_questions() -> None:
    assert RiskQuestion.parse("termination:0.05") == RiskQuestion("termination", None, 0.05)
    below = RiskQuestion.parse("below:-200:0.1")
    assert below == RiskQuestion("below", -200.0, 0.1)
    assert below.is_violated(np.array([-201.0, -200.0]), np.array([True, True])).tolist() == [1.0, 0.0]
    assert below.to_json()["text"] == "the return is below -200"
