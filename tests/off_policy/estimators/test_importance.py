"""Identities and known answers of importance sampling (float64, relative 1e-10)."""

import dataclasses

import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weights import WeightTransform, weight_blocks
from tests.off_policy.logs import FINITE, logged, one_step, select
from tests.off_policy.tabular import arrays_of, fall_mdp, simulate

KINDS = ("is", "pdis", "wis", "pdwis")


def points(arrays: OPEArrays, **settings) -> dict[str, float]:
    return {kind: importance_sampling(arrays, kind=kind, **settings).point for kind in KINDS}


def test_they_equal_the_products_of_ratios_that_define_them():
    arrays = logged()
    ratio, g = np.exp(arrays.log_ratio), arrays.discounts[:-1]
    weight = np.cumprod(ratio, 1)
    share = weight / weight.sum(0)
    returns = arrays.reward @ g
    expected = {
        "is": (weight[:, -1] * returns).mean(),
        "pdis": (weight * arrays.reward @ g).mean(),
        "wis": share[:, -1] @ returns,
        "pdwis": ((share * arrays.reward).sum(0) * g).sum(),
    }
    for kind, value in points(arrays).items():
        assert value == pytest.approx(expected[kind], rel=1e-12), kind


def test_the_behaviour_policy_itself_gets_the_mean_return():
    arrays = dataclasses.replace(logged(), log_ratio=np.zeros((40, 6)))
    for kind in KINDS:
        estimate = importance_sampling(arrays, kind=kind)
        assert estimate.point == pytest.approx(arrays.returns().mean(), rel=1e-12)
        assert estimate.n_eff == pytest.approx(40, rel=1e-12)


def test_a_reward_on_the_last_step_only_makes_deciding_per_step_pointless():
    arrays = logged(end=0.0)
    reward = np.zeros_like(arrays.reward)
    reward[:, -1] = arrays.reward[:, -1]
    found = points(dataclasses.replace(arrays, reward=reward))
    assert found["is"] == pytest.approx(found["pdis"], rel=1e-10)
    assert found["wis"] == pytest.approx(found["pdwis"], rel=1e-10)


def test_a_constant_reward_over_a_fixed_length_is_known_to_normalised_weights():
    arrays = logged(end=0.0)
    found = points(dataclasses.replace(arrays, reward=np.full_like(arrays.reward, 3.0)))
    assert found["wis"] == pytest.approx(3 * FINITE.weight_sum, rel=1e-12)
    assert found["pdwis"] == pytest.approx(3 * FINITE.weight_sum, rel=1e-12)
    assert abs(found["is"] - 3 * FINITE.weight_sum) > 0.01


def test_a_shift_of_the_reward_shifts_normalised_estimates_only():
    arrays = logged(end=0.0)
    before = points(arrays)
    after = points(dataclasses.replace(arrays, reward=arrays.reward + 2.0))
    for kind in ("wis", "pdwis"):
        assert after[kind] - before[kind] == pytest.approx(2 * FINITE.weight_sum, rel=1e-10)
    assert abs(after["is"] - before["is"] - 2 * FINITE.weight_sum) > 0.01


@pytest.mark.parametrize("factor", [3.0, -0.25])
def test_scaled_rewards_scale_estimates_errors_and_intervals(factor):
    arrays = logged()
    for kind in KINDS:
        before = importance_sampling(arrays, kind=kind)
        after = importance_sampling(dataclasses.replace(arrays, reward=factor * arrays.reward), kind=kind)
        assert after.point == pytest.approx(factor * before.point, rel=1e-10)
        assert after.se == pytest.approx(abs(factor) * before.se, rel=1e-10)
        ends = sorted(factor * end for end in before.ci95)
        assert after.ci95 == pytest.approx(tuple(ends), rel=1e-10)


def test_absorbing_padding_and_the_order_of_episodes_change_nothing():
    arrays = logged(n=60)
    wider = dataclasses.replace(
        arrays,
        log_ratio=np.pad(arrays.log_ratio, ((0, 0), (0, 4))),
        reward=np.pad(arrays.reward, ((0, 0), (0, 4))),
        action_value=np.pad(arrays.action_value, ((0, 0), (0, 4))),
        value=np.pad(arrays.value, ((0, 0), (0, 4))),
    )
    shuffled = select(arrays, np.random.default_rng(0).permutation(60))
    for other in (wider, shuffled):
        for kind, value in points(other).items():
            assert value == pytest.approx(points(arrays)[kind], rel=1e-12), kind


def test_how_time_is_cut_into_blocks_changes_nothing(monkeypatch):
    arrays = logged(estimand=Estimand(0.9))
    whole = points(arrays, tail="bootstrap")
    monkeypatch.setattr(
        "mbrl.off_policy.estimators.importance.weight_blocks", lambda *a: weight_blocks(*a, entries=80)
    )
    assert len(list(weight_blocks(arrays, entries=80))) == 3
    for kind, value in points(arrays, tail="bootstrap").items():
        assert value == pytest.approx(whole[kind], rel=1e-13)


def test_one_step_is_the_contextual_bandit():
    one = one_step()
    ratio, reward = np.exp(one.log_ratio[:, 0]), one.reward[:, 0]
    assert importance_sampling(one, kind="is").point == pytest.approx((ratio * reward).mean(), rel=1e-12)
    snipw = (ratio * reward).sum() / ratio.sum()
    assert importance_sampling(one, kind="wis").point == pytest.approx(snipw, rel=1e-12)
    shrunk = ratio * 2.0 / (ratio**2 + 2.0)
    found = importance_sampling(one, kind="is", transform=WeightTransform(shrinkage=2.0))
    assert found.point == pytest.approx((shrunk * reward).mean(), rel=1e-12)
    switched = np.where(ratio > 1.2, 0.0, ratio)
    found = importance_sampling(one, kind="is", transform=WeightTransform(switch=1.2))
    assert found.point == pytest.approx((switched * reward).mean(), rel=1e-12)
    found = importance_sampling(one, kind="is", transform=WeightTransform(cap=1.2))
    assert found.point == pytest.approx((np.minimum(ratio, 1.2) * reward).mean(), rel=1e-12)


def test_survival_that_depends_on_actions_is_counted():
    """Peers divide by the mean weight of living episodes, or give ended ones no weight: biased here."""
    mdp = fall_mdp(0.5)
    behaviour, evaluated = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    estimand = Estimand(1.0, horizon=5)
    log = simulate(mdp, behaviour, 20_000, 5, np.random.default_rng(0))
    arrays = arrays_of(log, evaluated, behaviour, estimand)
    truth = sum(0.95**t for t in range(5))
    assert mdp.value(evaluated, estimand) == pytest.approx(truth, rel=1e-12)
    for kind in ("pdis", "pdwis"):
        estimate = importance_sampling(arrays, kind=kind, bootstrap=None)
        assert abs(estimate.point - truth) < 4 * estimate.se < 0.4
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    living = (weight * arrays.alive / (weight * arrays.alive).sum(0) * arrays.reward).sum()
    assert living == pytest.approx(5.0)  # what a division by the living says: nobody ever falls


def test_a_terminating_reward_counts_and_padding_does_not_enter_the_normaliser():
    arrays = OPEArrays(
        log_ratio=np.log([[2.0, 1.0], [1.0, 4.0]]),
        reward=np.array([[5.0, 0.0], [1.0, 2.0]]),
        action_value=np.zeros((2, 2)),
        value=np.zeros((2, 3)),
        length=np.array([1, 2]),
        terminated=np.array([True, True]),
        truncated=np.array([False, False]),
        estimand=Estimand(1.0, horizon=2),
    )
    # step 0: (2 * 5 + 1 * 1) / 3; step 1: the ended episode keeps its weight 2 beside 4
    assert importance_sampling(arrays, kind="pdwis").point == pytest.approx(11 / 3 + 8 / 6)


def test_a_discount_of_zero_is_the_first_reward():
    arrays = dataclasses.replace(logged(), estimand=Estimand(0.0, horizon=6))
    ratio = np.exp(arrays.log_ratio[:, 0])
    expected = (ratio * arrays.reward[:, 0]).sum() / ratio.sum()
    assert importance_sampling(arrays, kind="pdwis").point == pytest.approx(expected, rel=1e-12)
    assert importance_sampling(arrays, kind="pdis").point == pytest.approx(
        (ratio * arrays.reward[:, 0]).mean(), rel=1e-12
    )


def test_normalisation_multiplies_everything_by_one_minus_the_discount():
    arrays = logged()
    scaled = dataclasses.replace(arrays, estimand=Estimand(0.9, horizon=6, normalised=True))
    for kind in KINDS:
        plain, small = (importance_sampling(a, kind=kind) for a in (arrays, scaled))
        assert small.point == pytest.approx(0.1 * plain.point, rel=1e-12)
        assert small.ci95 == pytest.approx(tuple(0.1 * end for end in plain.ci95), rel=1e-12)
        np.testing.assert_allclose(small.per_episode, 0.1 * plain.per_episode, rtol=1e-12)


def test_influence_values_have_the_estimate_as_their_mean():
    arrays = logged()
    for kind in KINDS:
        estimate = importance_sampling(arrays, kind=kind)
        assert estimate.per_episode.mean() == pytest.approx(estimate.point, rel=1e-12)


def test_the_delta_method_of_wis_is_the_textbook_form():
    arrays = logged()
    weight = np.exp(arrays.log_ratio.sum(1))
    share, returns = weight / weight.sum(), arrays.returns()
    expected = np.sqrt((share**2 * (returns - share @ returns) ** 2).sum())
    assert importance_sampling(arrays, kind="wis").se == pytest.approx(expected, rel=1e-12)


def test_time_outs_are_refused_or_bootstrapped_with_the_weight_they_were_reached_with():
    arrays = logged(estimand=Estimand(0.9))
    assert arrays.truncated.any()
    with pytest.raises(EstimandError, match="episodes were cut"):
        importance_sampling(arrays, kind="pdis")
    with pytest.raises(EstimandError, match="episodes were cut"):
        importance_sampling(dataclasses.replace(arrays, has_values=False), kind="pdis", tail="bootstrap")
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    tail = arrays.tail * 0.9**arrays.length
    reweighted = weight[np.arange(40), arrays.length - 1] * tail
    found = importance_sampling(arrays, kind="pdis", tail="bootstrap")
    expected = (weight * arrays.reward @ arrays.discounts[:-1] + reweighted).mean()
    assert found.point == pytest.approx(expected, rel=1e-12)
    assert found.family == "hybrid"
    share = weight / weight.sum(0)
    at_end = share[np.arange(40), arrays.length - 1] * tail
    found = importance_sampling(arrays, kind="pdwis", tail="bootstrap")
    expected = ((share * arrays.reward).sum(0) * arrays.discounts[:-1]).sum() + at_end.sum()
    assert found.point == pytest.approx(expected, rel=1e-12)
    assert found.details["tail_share"] == pytest.approx(abs(at_end.sum() / expected), rel=1e-12)
    found = importance_sampling(arrays, kind="wis", tail="bootstrap")
    assert found.point == pytest.approx(share[:, -1] @ (arrays.returns() + tail), rel=1e-12)


def test_weights_that_all_vanish_give_nan_with_a_reason():
    arrays = logged()
    log_ratio = arrays.log_ratio.copy()
    log_ratio[:, 3] = -np.inf
    dead = dataclasses.replace(arrays, log_ratio=log_ratio)
    for kind in ("wis", "pdwis"):
        estimate = importance_sampling(dead, kind=kind)
        assert np.isnan(estimate.point)
        assert estimate.why_not == "all_weights_zero@3"
        assert not estimate.valid
    assert importance_sampling(dead, kind="is").point == 0.0


def test_a_thousand_steps_neither_overflow_nor_underflow():
    rng = np.random.default_rng(0)
    n, steps = 50, 1000
    arrays = OPEArrays(
        rng.uniform(np.log(0.1), np.log(10), (n, steps)),
        rng.normal(size=(n, steps)),
        np.zeros((n, steps)),
        np.zeros((n, steps + 1)),
        np.full(n, steps),
        np.ones(n, dtype=bool),
        np.zeros(n, dtype=bool),
        Estimand(1.0, horizon=steps),
    )
    for kind in KINDS:
        assert np.isfinite(importance_sampling(arrays, kind=kind).point), kind
    huge = dataclasses.replace(arrays, log_ratio=np.full((n, steps), np.log(10.0)))
    assert importance_sampling(huge, kind="wis").point == pytest.approx(arrays.returns().mean(), rel=1e-10)
    estimate = importance_sampling(huge, kind="is")
    assert estimate.why_not == "weights_overflow"
    tiny = dataclasses.replace(arrays, log_ratio=np.full((n, steps), np.log(0.1)))
    assert importance_sampling(tiny, kind="pdwis").point == pytest.approx(arrays.returns().mean(), rel=1e-10)


def test_clipping_a_step_acts_before_the_product():
    arrays = logged()
    found = importance_sampling(arrays, kind="is", transform=WeightTransform(clip_log_ratio=(-0.3, 0.2)))
    weight = np.exp(np.clip(arrays.log_ratio, -0.3, 0.2).sum(1))
    assert found.point == pytest.approx((weight * arrays.returns()).mean(), rel=1e-12)


def test_one_episode_has_no_interval():
    estimate = importance_sampling(logged(n=1), kind="pdis")
    assert np.isfinite(estimate.point)
    assert np.isnan(estimate.ci95[0])
    assert estimate.method_of_ci == "none: one episode has no spread"
