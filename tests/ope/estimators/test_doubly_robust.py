import dataclasses

import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.ope.estimators.doubly_robust import backward_doubly_robust, doubly_robust, weighted_doubly_robust
from mbrl.ope.estimators.importance import direct_method, importance_sampling
from mbrl.ope.estimators.magic import MagicConfig, error_covariance, magic, partial_summands
from mbrl.ope.log.layout import OPEArrays
from mbrl.ope.log.weights import WeightTransform
from mbrl.ope.statistics.simplex import least_error_blend
from tests.ope.logs import FINITE, logged, one_step
from tests.ope.tabular import MDP, arrays_of, random_mdp, random_policy, simulate


def without_values(arrays: OPEArrays) -> OPEArrays:
    return dataclasses.replace(
        arrays, action_value=np.zeros_like(arrays.action_value), value=np.zeros_like(arrays.value)
    )


def test_without_values_they_are_importance_sampling():
    arrays = without_values(logged())
    assert doubly_robust(arrays).point == pytest.approx(
        importance_sampling(arrays, kind="pdis").point, rel=1e-12
    )
    assert weighted_doubly_robust(arrays).point == pytest.approx(
        importance_sampling(arrays, kind="pdwis").point, rel=1e-12
    )


@pytest.mark.parametrize("estimand", [FINITE, Estimand(0.9)])
def test_the_forward_sum_equals_the_backward_recursion(estimand):
    arrays = logged(estimand=estimand)
    forward = doubly_robust(arrays)
    np.testing.assert_allclose(forward.per_episode, backward_doubly_robust(arrays), rtol=1e-10)


def test_in_a_deterministic_task_exact_values_make_every_term_the_value_of_the_start():
    transition = np.zeros((4, 2, 5))
    for state in range(4):
        transition[state, 0, (state + 1) % 4] = 1.0
        transition[state, 1, 4 if state == 3 else state + 1] = 1.0
    mdp = MDP(transition, np.random.default_rng(0).normal(size=(4, 2)), np.full(4, 0.25))
    behaviour, evaluated = random_policy(1, mdp), random_policy(2, mdp)
    log = simulate(mdp, behaviour, 50, 7, np.random.default_rng(3))
    for estimand, q in (
        (Estimand(1.0, horizon=7), mdp.q_finite(evaluated, 1.0, 7)),
        (Estimand(0.9), mdp.q_discounted(evaluated, 0.9)),
    ):
        arrays = arrays_of(log, evaluated, behaviour, estimand, q)
        first = ((q[0] if q.ndim == 3 else q) * evaluated).sum(1)[log.state[:, 0]]
        np.testing.assert_allclose(doubly_robust(arrays).per_episode, first, rtol=1e-10, atol=1e-12)


def test_scaled_rewards_and_values_scale_them():
    arrays = logged()
    scaled = dataclasses.replace(
        arrays,
        reward=3 * arrays.reward,
        action_value=3 * arrays.action_value,
        value=3 * arrays.value,
    )
    for estimator in (doubly_robust, weighted_doubly_robust, magic, direct_method):
        assert estimator(scaled).point == pytest.approx(3 * estimator(arrays).point, rel=1e-8)


def test_a_shifted_reward_shifts_wdr_over_a_fixed_length():
    arrays = logged(end=0.0)
    shifted = dataclasses.replace(arrays, reward=arrays.reward + 2.0)
    change = weighted_doubly_robust(shifted).point - weighted_doubly_robust(arrays).point
    assert change == pytest.approx(2 * FINITE.weight_sum, rel=1e-10)


def test_wdr_equals_its_definition():
    arrays = logged(estimand=Estimand(0.9))
    n, steps = arrays.reward.shape
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    share = weight / weight.sum(0)
    previous = np.concatenate([np.full((n, 1), 1 / n), share], 1)
    g = 0.9 ** np.arange(steps + 1)
    corrections = (share * (arrays.reward - arrays.action_value)).sum(0) @ g[:-1]
    values = (previous * arrays.value).sum(0) @ g
    assert weighted_doubly_robust(arrays).point == pytest.approx(corrections + values, rel=1e-12)


def test_values_beyond_the_end_of_an_episode_do_not_enter():
    """Peers read Q at terminal states; the layout leaves no place for it."""
    mdp = random_mdp(0)
    behaviour, evaluated = random_policy(1, mdp), random_policy(2, mdp)
    log = simulate(mdp, behaviour, 40, 6, np.random.default_rng(0))
    q = mdp.q_finite(evaluated, 0.9, 6)
    garbage = dataclasses.replace(log, state=np.where(np.arange(7) >= log.length[:, None], 3, log.state))
    first, second = (doubly_robust(arrays_of(x, evaluated, behaviour, FINITE, q)) for x in (log, garbage))
    assert first.point == second.point


def test_one_step_is_the_contextual_bandit():
    one = one_step()
    ratio, reward = np.exp(one.log_ratio[:, 0]), one.reward[:, 0]
    q, v = one.action_value[:, 0], one.value[:, 0]
    assert doubly_robust(one).point == pytest.approx((v + ratio * (reward - q)).mean(), rel=1e-12)
    sndr = v.mean() + (ratio * (reward - q)).sum() / ratio.sum()
    assert weighted_doubly_robust(one).point == pytest.approx(sndr, rel=1e-12)
    switched = np.where(ratio > 1.2, 0.0, ratio)
    found = doubly_robust(one, transform=WeightTransform(switch=1.2))
    assert found.point == pytest.approx((v + switched * (reward - q)).mean(), rel=1e-12)
    low, high = sorted((v.mean(), sndr))
    assert low - 1e-12 <= magic(one).point <= high + 1e-12


def test_partial_returns_run_from_the_direct_method_to_wdr():
    arrays = logged(estimand=Estimand(0.9))
    steps = arrays.steps
    partial = partial_summands(arrays, list(range(-1, steps))).sum(0)
    assert partial[0] == pytest.approx(direct_method(arrays).point, rel=1e-12)
    assert partial[-1] == pytest.approx(weighted_doubly_robust(arrays).point, rel=1e-12)
    weight = np.exp(np.cumsum(arrays.log_ratio, 1))
    share = weight / weight.sum(0)
    j = 2
    previous = np.concatenate([np.full((40, 1), 1 / 40), share], 1)
    g = 0.9 ** np.arange(steps + 1)
    by_hand = sum(
        g[t]
        * (share[:, t] @ (arrays.reward - arrays.action_value)[:, t] + previous[:, t] @ arrays.value[:, t])
        for t in range(j + 1)
    )
    by_hand += g[j + 1] * share[:, j] @ arrays.value[:, j + 1]
    assert partial[j + 1] == pytest.approx(by_hand, rel=1e-12)


def test_magic_lies_between_its_parts_on_a_thinned_grid():
    arrays = logged(n=200, seed=4)
    estimate = magic(arrays, config=MagicConfig(max_lengths=4))
    partial, blend = estimate.details["partial"], estimate.details["blend"]
    assert estimate.details["lengths"][0] == -1
    assert estimate.details["lengths"][-1] == 5
    assert blend.sum() == pytest.approx(1.0)
    assert (blend >= 0).all()
    assert partial.min() <= estimate.point <= partial.max()
    assert estimate.per_episode.mean() == pytest.approx(estimate.point, rel=1e-10)


def test_the_error_is_n_times_the_covariance_of_the_summands():
    summands = np.random.default_rng(0).normal(size=(30, 4))
    omega = error_covariance(summands)
    np.testing.assert_allclose(omega, 30 * np.cov(summands.T, ddof=1), rtol=1e-10)
    assert np.linalg.eigvalsh(omega).min() >= -1e-12


def test_the_blend_is_optimal_on_the_simplex():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 25):
        root = rng.normal(size=(size, max(1, size // 2)))  # rank-deficient on purpose
        error = root @ root.T
        blend = least_error_blend(error)
        gradient = error @ blend / np.trace(error)
        assert blend.sum() == pytest.approx(1.0)
        assert blend @ gradient <= gradient.min() + 1e-8
        for other in rng.dirichlet(np.ones(size), 50):
            assert blend @ error @ blend <= other @ error @ other + 1e-8 * np.trace(error)
    np.testing.assert_allclose(least_error_blend(np.diag([1.0, 3.0])), [0.75, 0.25], atol=1e-10)
    assert least_error_blend(np.zeros((3, 3))).tolist() == [0, 0, 1]


def test_they_refuse_a_log_without_values():
    arrays = dataclasses.replace(logged(), has_values=False)
    for estimator in (doubly_robust, weighted_doubly_robust, magic):
        with pytest.raises(EstimandError, match="needs Q and V"):
            estimator(arrays)
