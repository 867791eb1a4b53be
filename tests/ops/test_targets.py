import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mbrl.ops.targets import (
    clipped_value,
    penalised_next_value,
    smoothed_action,
    soft_next_value,
    td_target,
    value_bounds,
)


def test_td_target_by_hand():
    reward = torch.tensor([1.0, -2.0, 0.5])
    terminated = torch.tensor([False, True, False])
    next_value = torch.tensor([10.0, 100.0, -4.0])
    value = td_target(reward, terminated, next_value, discount=0.9)
    torch.testing.assert_close(value, torch.tensor([10.0, -2.0, -3.1]))


def test_td_target_of_a_terminal_row_is_its_reward_even_if_the_bootstrap_is_not_finite():
    value = td_target(
        torch.tensor([3.0, 4.0]),
        torch.tensor([True, True]),
        torch.tensor([math.inf, math.nan]),
        discount=0.99,
    )
    assert value.tolist() == [3.0, 4.0]


def test_td_target_broadcasts_over_leading_axes_without_mixing_rows():
    reward = torch.arange(6.0).reshape(2, 3)
    terminated = torch.tensor([[False, True, False], [True, False, False]])
    value = td_target(reward, terminated, torch.ones(2, 3), discount=0.5)
    torch.testing.assert_close(value, reward + 0.5 * (~terminated).float())


def test_soft_next_value_by_hand_with_and_without_entropy():
    action_values = torch.tensor([[1.0, 5.0], [2.0, 3.0], [4.0, 4.0]])
    log_prob = torch.tensor([-2.0, 0.5])
    coef = torch.tensor(0.1)
    plain = soft_next_value(action_values, log_prob, entropy_coef=coef, has_entropy=False)
    soft = soft_next_value(action_values, log_prob, entropy_coef=coef, has_entropy=True)
    torch.testing.assert_close(plain, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(soft, torch.tensor([1.2, 2.95]))


@settings(deadline=None)
@given(st.floats(-20, -0.01), st.floats(0.01, 10))
def test_entropy_in_the_backup_raises_the_target_of_an_uncertain_policy(log_prob, coef):
    values = torch.zeros(2, 1, dtype=torch.float64)
    log_probs = torch.tensor([log_prob], dtype=torch.float64)
    soft = soft_next_value(
        values, log_probs, entropy_coef=torch.tensor(coef, dtype=torch.float64), has_entropy=True
    )
    assert float(soft) > 0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, (0.0, 100.0)),  # the clamp [80, 120] of a known defect would cut nearly all of it
        (1.0, 2.0, (1.0, 200.0)),  # an episode may end after one positive reward
        (-2.0, -1.0, (-200.0, -1.0)),
        (-1.0, 3.0, (-100.0, 300.0)),
    ],
)
def test_value_bounds_by_hand(low, high, expected):
    assert value_bounds(low, high, discount=0.99) == pytest.approx(expected)


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=30),
    st.floats(0, 0.99),
    st.booleans(),
)
def test_value_bounds_hold_every_return(rewards, discount, ends):
    low, high = value_bounds(min(rewards), max(rewards), discount=discount)
    value = 0.0 if ends else rewards[-1] / (1 - discount)  # afterwards: nothing, or the last reward for ever
    for reward in reversed(rewards):
        value = reward + discount * value
    assert low - 1e-9 <= value <= high + 1e-9


def test_smoothed_action_clips_the_noise_and_then_the_action():
    action = torch.tensor([[0.5, -0.9], [0.0, 0.0]])
    noise = torch.tensor([[1.0, -1.0], [10.0, -10.0]])
    smoothed = smoothed_action(action, noise, noise_std=0.2, noise_clip=0.5)
    torch.testing.assert_close(smoothed, torch.tensor([[0.7, -1.0], [0.5, -0.5]]))


def test_clipped_value_by_hand():
    values = torch.tensor([[1.0, 5.0], [2.0, -3.0], [4.0, 0.0]])
    torch.testing.assert_close(clipped_value(values), torch.tensor([1.0, -3.0]))
    expected = torch.tensor([0.75 * 1 + 0.25 * 4, 0.75 * -3 + 0.25 * 5])
    torch.testing.assert_close(clipped_value(values, minimum_weight=0.75), expected)
    torch.testing.assert_close(clipped_value(values, minimum_weight=0.0), torch.tensor([4.0, 5.0]))


def test_penalised_next_value_by_hand_and_without_a_next_action():
    value = penalised_next_value(
        torch.tensor([3.0, 3.0, 3.0]),
        torch.tensor([0.5, 7.0, math.nan]),
        torch.tensor([True, False, False]),
        coef=2.0,
    )
    assert value.tolist() == [2.0, 3.0, 3.0]
