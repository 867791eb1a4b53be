import dataclasses

import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.log.layout import OPEArrays
from mbrl.off_policy.log.weights import WeightTransform
from tests.off_policy.logs import FINITE, logged, one_step, without_values
from tests.off_policy.tabular import MDP, Array, arrays_of, random_mdp, random_policy, simulate


def backward(arrays: OPEArrays) -> Array:
    """`z_t = V_t + rho_t (r_t + g z_{t+1} - Q_t)` back from the value of the last state, as in the paper."""
    z = arrays.value[:, -1].copy()
    ratio = np.exp(arrays.log_ratio)
    for t in range(arrays.steps - 1, -1, -1):
        target = arrays.reward[:, t] + arrays.estimand.discount * z - arrays.action_value[:, t]
        z = arrays.value[:, t] + ratio[:, t] * target
    return z


def test_without_values_it_is_importance_sampling():
    arrays = without_values(logged())
    expected = importance_sampling(arrays, kind="pdis").point
    assert doubly_robust(arrays).point == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("estimand", [FINITE, Estimand(0.9)])
def test_the_forward_sum_equals_the_backward_recursion(estimand):
    arrays = logged(estimand=estimand)
    forward = doubly_robust(arrays)
    np.testing.assert_allclose(forward.per_episode, backward(arrays), rtol=1e-10)


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


def test_scaled_rewards_and_values_scale_it():
    arrays = logged()
    scaled = dataclasses.replace(
        arrays, reward=3 * arrays.reward, action_value=3 * arrays.action_value, value=3 * arrays.value
    )
    assert doubly_robust(scaled).point == pytest.approx(3 * doubly_robust(arrays).point, rel=1e-8)


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
    switched = np.where(ratio > 1.2, 0.0, ratio)
    found = doubly_robust(one, transform=WeightTransform(switch=1.2))
    assert found.point == pytest.approx((v + switched * (reward - q)).mean(), rel=1e-12)


def test_it_refuses_a_log_without_values():
    with pytest.raises(EstimandError, match="needs Q and V"):
        doubly_robust(dataclasses.replace(logged(), has_values=False))
