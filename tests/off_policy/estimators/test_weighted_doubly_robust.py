import dataclasses

import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.importance import importance_sampling
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from tests.off_policy.logs import FINITE, logged, one_step, without_values


def test_without_values_it_is_weighted_importance_sampling():
    arrays = without_values(logged())
    expected = importance_sampling(arrays, kind="pdwis").point
    assert weighted_doubly_robust(arrays).point == pytest.approx(expected, rel=1e-12)


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


def test_one_step_is_the_self_normalised_bandit():
    one = one_step()
    ratio, rest = np.exp(one.log_ratio[:, 0]), one.reward[:, 0] - one.action_value[:, 0]
    expected = one.value[:, 0].mean() + (ratio * rest).sum() / ratio.sum()
    assert weighted_doubly_robust(one).point == pytest.approx(expected, rel=1e-12)


def test_scaled_rewards_and_values_scale_it():
    arrays = logged()
    scaled = dataclasses.replace(
        arrays, reward=3 * arrays.reward, action_value=3 * arrays.action_value, value=3 * arrays.value
    )
    expected = 3 * weighted_doubly_robust(arrays).point
    assert weighted_doubly_robust(scaled).point == pytest.approx(expected, rel=1e-8)


def test_it_refuses_a_log_without_values():
    with pytest.raises(EstimandError, match="needs Q and V"):
        weighted_doubly_robust(dataclasses.replace(logged(), has_values=False))
