import dataclasses

import numpy as np
import pytest

from mbrl.core.errors import DataError, EstimandError
from mbrl.core.estimates import Estimand
from mbrl.core.types import Episode
from mbrl.off_policy.log.layout import pad_log

DISCOUNTED = Estimand(0.9)


def episode(rewards: list[float], *, terminated: bool = True, both: bool = False) -> Episode:
    steps = len(rewards)
    return Episode(
        observations=np.zeros((steps + 1, 1), np.float32),
        actions=np.zeros((steps, 1), np.float32),
        rewards=np.array(rewards, np.float32),
        terminated=terminated,
        truncated=not terminated or both,
        behaviour_log_prob=np.full(steps, -1.0, np.float32),
    )


EPISODES = [episode([1, 2, 3]), episode([4], terminated=False), episode([5, 6])]
LOG_PROB = np.array([-1.5, -1.0, -2.0, 0.5, -1.0, -np.inf])


def test_every_step_is_in_its_place_and_padding_is_zero():
    arrays = pad_log(EPISODES, LOG_PROB, estimand=DISCOUNTED)
    assert arrays.log_ratio.tolist() == [[-0.5, 0.0, -1.0], [1.5, 0.0, 0.0], [0.0, -np.inf, 0.0]]
    assert arrays.reward.tolist() == [[1, 2, 3], [4, 0, 0], [5, 6, 0]]
    assert arrays.length.tolist() == [3, 1, 2]
    assert arrays.alive.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    np.testing.assert_allclose(arrays.returns(), [1 + 1.8 + 2.43, 4, 5 + 5.4])


def test_the_value_after_a_terminal_is_zero_and_after_a_time_out_is_kept():
    value = np.arange(10.0, 19.0)  # 4 + 2 + 3 states
    arrays = pad_log(EPISODES, LOG_PROB, estimand=DISCOUNTED, action_value=np.arange(6.0), value=value)
    assert arrays.value.tolist() == [[10, 11, 12, 0], [14, 15, 0, 0], [16, 17, 0, 0]]
    assert arrays.tail.tolist() == [0, 15, 0]
    assert arrays.action_value.tolist() == [[0, 1, 2], [3, 0, 0], [4, 5, 0]]


def test_a_horizon_cuts_episodes_without_making_them_terminal_or_truncated():
    episodes = [episode([1, 2, 3]), episode([4, 4], terminated=False), episode([5])]
    value = np.ones(9)
    arrays = pad_log(episodes, np.zeros(6), estimand=Estimand(1.0, horizon=2), value=value)
    assert arrays.reward.tolist() == [[1, 2], [4, 4], [5, 0]]
    assert arrays.terminated.tolist() == [False, False, True]
    assert not arrays.truncated.any()
    assert arrays.value.tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_a_cut_before_the_horizon_censors_and_keeps_the_value_of_what_is_to_come():
    episodes = [episode([1, 1, 1], terminated=False), episode([2, 2], terminated=False), episode([3])]
    arrays = pad_log(episodes, np.zeros(6), estimand=Estimand(1.0, horizon=3), value=np.arange(10.0, 19.0))
    assert arrays.truncated.tolist() == [False, True, False]
    assert arrays.tail.tolist() == [0, 16, 0]  # the first ran to the horizon, the last ended by itself
    assert arrays.value.tolist() == [[10, 11, 12, 0], [14, 15, 16, 0], [17, 0, 0, 0]]


def test_both_flags_count_as_terminated():
    arrays = pad_log([episode([1.0], both=True)], [0.0], estimand=DISCOUNTED, value=[1.0, 7.0])
    assert arrays.both_flags == 1
    assert arrays.terminated.tolist() == [True]
    assert arrays.tail.tolist() == [0.0]


@pytest.mark.parametrize(
    ("evaluation", "behaviour", "message"),
    [
        ([0, np.nan, 0, 0, 0, 0], None, "episode 0, field evaluation_log_prob, row 1"),
        ([0, 0, 0, np.inf, 0, 0], None, "episode 1, field evaluation_log_prob, row 0"),
        ([0] * 6, [0, 0, 0, 0, 0, -np.inf], "episode 2, field behaviour_log_prob, row 1: the logged action"),
        ([0] * 5, None, "shape"),
    ],
)
def test_unusable_log_densities_are_named_with_their_place(evaluation, behaviour, message):
    with pytest.raises(DataError, match=message):
        pad_log(EPISODES, evaluation, estimand=DISCOUNTED, behaviour_log_prob=behaviour)


def test_probabilities_in_place_of_their_logarithms_are_detected_for_discrete_actions():
    with pytest.raises(DataError, match="not probabilities"):
        pad_log(EPISODES, np.full(6, 0.3), estimand=DISCOUNTED, is_discrete=True)
    pad_log(EPISODES, np.full(6, 0.3), estimand=DISCOUNTED)  # a density may exceed 1


def test_bad_logs_are_refused():
    with pytest.raises(DataError, match="no episodes"):
        pad_log([], [], estimand=DISCOUNTED)
    endless = dataclasses.replace(EPISODES[0], terminated=False)
    with pytest.raises(DataError, match="without a flag"):
        pad_log([endless], np.zeros(3), estimand=DISCOUNTED)
    with pytest.raises(DataError, match="episode 0, field reward, row 1: the entry is nan"):
        pad_log([episode([1, np.nan])], np.zeros(2), estimand=DISCOUNTED)
    unlogged = dataclasses.replace(EPISODES[0], behaviour_log_prob=None)
    with pytest.raises(DataError, match="Fit the behaviour policy"):
        pad_log([unlogged], np.zeros(3), estimand=DISCOUNTED)


@pytest.mark.parametrize("discount", [-0.1, 1.1])
def test_a_discount_outside_the_unit_interval_is_refused(discount):
    with pytest.raises(EstimandError, match=r"\[0, 1\]"):
        Estimand(discount)


def test_a_discount_of_one_needs_an_end():
    with pytest.raises(EstimandError, match="sums for ever"):
        Estimand(1.0)
    assert Estimand(1.0, horizon=7).weight_sum == 7
    assert Estimand(1.0, is_proper=True).weight_sum == np.inf
    with pytest.raises(EstimandError, match="normalised"):
        Estimand(1.0, horizon=7, normalised=True)


def test_the_estimand_is_said_in_words():
    assert Estimand(0.99, 500).describe().startswith("E[sum_{t<500} 0.99^t r_t], absorbing after terminal")
    assert "time-outs bootstrapped" in Estimand(0.99).describe()
    assert Estimand(0.5, 3).weight_sum == 1.75
