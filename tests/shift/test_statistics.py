import numpy as np
import pytest
import torch
from scipy import stats

from mbrl.core.types import Episode
from mbrl.dynamics.assessment.open_loop import Segments
from mbrl.rollouts.generate import Rollouts
from mbrl.shift.statistics import (
    DISTANCE_OF_NEAR,
    MIN_SEGMENTS,
    TAIL,
    compare_values,
    edge_excess,
    edge_of_reach,
    error_near_policy,
    relative_change,
    returns_to_go,
)


def episode(rewards: list[float], *, terminated: bool) -> Episode:
    steps = len(rewards)
    return Episode(
        observations=np.zeros((steps + 1, 1), np.float32),
        actions=np.zeros((steps, 1), np.float32),
        rewards=np.array(rewards, np.float32),
        terminated=terminated,
        truncated=not terminated,
    )


def test_returns_of_a_terminated_episode_end_with_it() -> None:
    returns, is_usable = returns_to_go([episode([1.0, 2.0, 4.0], terminated=True)], 0.5)
    assert returns.tolist() == [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4.0]
    assert is_usable.all()


def test_a_constant_reward_goes_on_for_ever_after_a_truncation() -> None:
    """Reward 1: `1 / (1 - discount)` everywhere; terminated, `(1 - discount^n) / (1 - discount)`."""
    discount, steps = 0.9, 40
    logs = [episode([1.0] * steps, terminated=end) for end in (False, True)]
    returns, is_usable = returns_to_go(logs, discount)
    left = np.arange(steps, 0, -1)
    np.testing.assert_allclose(returns[:steps], 10.0)
    np.testing.assert_allclose(returns[steps:], 10.0 * (1 - discount**left))
    # 0.9^16 = 0.185 is the first power of at most a fifth
    assert is_usable[:steps].tolist() == [n >= 16 for n in left]
    assert discount**16 <= TAIL < discount**15
    assert is_usable[steps:].all()


def test_the_cut_is_continued_with_the_mean_reward_of_all_steps() -> None:
    logs = [episode([3.0], terminated=False), episode([0.0, 1.0], terminated=True)]
    returns, is_usable = returns_to_go(logs, 0.1)
    tail = (4 / 3) / 0.9
    np.testing.assert_allclose(returns, [3 + 0.1 * tail, 0.1, 1.0])
    assert is_usable.all()


def test_values_of_the_chain_have_no_gap_and_shifted_ones_their_shift() -> None:
    returns, _ = returns_to_go([episode([1.0] * 30, terminated=True)], 0.9)
    exact = compare_values(returns, returns, bounds=(0.0, 10.0))
    assert exact.gap == pytest.approx(0)
    assert exact.rank_correlation == pytest.approx(1)
    std = returns.std()
    assert compare_values(returns + 3 * std, returns, bounds=None).gap == pytest.approx(3)
    assert compare_values(-returns, returns, bounds=None).rank_correlation == pytest.approx(-1)
    assert exact.low == pytest.approx(-returns.mean() / std)
    assert exact.high == pytest.approx((10 - returns.mean()) / std)


def test_comparison_agrees_with_scipy_in_any_order_of_rows() -> None:
    rng = np.random.default_rng(0)
    values, returns = rng.normal(size=(2, 200))
    values += returns
    order = rng.permutation(200)
    one = compare_values(values, returns, bounds=(-5.0, 5.0))
    other = compare_values(values[order], returns[order], bounds=(-5.0, 5.0))
    assert one == pytest.approx(other)
    assert one.rank_correlation == pytest.approx(stats.spearmanr(values, returns).statistic)


def test_what_does_not_vary_has_no_comparison() -> None:
    assert compare_values(np.arange(3.0), np.full(3, 1e6 + 0.1), bounds=None).gap is None
    flat = compare_values(np.full(3, 2.0), np.arange(3.0), bounds=None)
    assert flat.rank_correlation is None
    assert flat.gap == pytest.approx(1 / np.arange(3.0).std())


def test_change_is_relative_to_the_value_or_the_spread() -> None:
    assert relative_change(4.0, 3.0, spread=0.1) == pytest.approx(1 / 3)
    assert relative_change(-4.0, -3.0, spread=0.1) == pytest.approx(-1 / 3)
    assert relative_change(0.5, 0.0, spread=2.0) == pytest.approx(0.25)
    assert relative_change(0.0, 0.0, spread=0.0) is None


def rollouts(valid: list[list[int]], terminated: list[list[int]]) -> Rollouts:
    flags = torch.tensor(valid, dtype=torch.bool)
    ends = torch.tensor(terminated, dtype=torch.bool)
    h, b = flags.shape
    vector, scalar, off = torch.zeros(h, b, 1), torch.zeros(h, b), torch.zeros(h, b, dtype=torch.bool)
    return Rollouts(
        observation=vector,
        action=vector,
        reward=scalar,
        uncertainty=scalar,
        next_observation=vector,
        next_action=vector,
        terminated=ends,
        truncated=off,
        valid=flags,
        flagged=off,
        clipped=off[..., None].expand(h, b, 2),
        non_finite=off,
    )


def test_only_ends_that_bootstrap_are_edges() -> None:
    """Columns: a full rollout, one cut after a step, one that terminates, one of which nothing is stored."""
    made = rollouts(
        valid=[[1, 1, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]],
        terminated=[[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
    )
    reach = edge_of_reach(made)
    assert reach.edge.tolist() == [
        [False, True, False, False],
        [False, False, False, False],
        [True, False, False, False],
    ]
    assert int(reach.target.sum()) == 3 + 1 + 1
    assert reach.share == 2 / 5
    value = torch.tensor([[1.0, 2.0, 9.0, 9.0], [2.0, 9.0, 9.0, 9.0], [6.0, 9.0, 9.0, 9.0]])
    next_value = torch.tensor([[0.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [7.0, 0.0, 0.0, 0.0]])
    # (7 - mean(1, 2, 6)) and (5 - 2), averaged
    assert edge_excess(reach, made.valid, value=value, next_value=next_value) == pytest.approx(3.5)


@pytest.mark.parametrize("horizon", [1, 4])
def test_full_rollouts_have_one_edge_in_their_horizon(horizon: int) -> None:
    made = rollouts([[1] * 7] * horizon, [[0] * 7] * horizon)
    assert edge_of_reach(made).share == pytest.approx(1 / horizon)


def test_rollouts_that_all_end_have_no_edge() -> None:
    made = rollouts([[1, 1]], [[1, 1]])
    reach = edge_of_reach(made)
    assert reach.share is None
    assert edge_excess(reach, made.valid, value=torch.zeros(1, 2), next_value=torch.ones(1, 2)) is None


def segments(actions: np.ndarray, alive: np.ndarray) -> Segments:
    count, horizon = alive.shape
    return Segments(
        observations=np.zeros((count, horizon + 1, 1), np.float32),
        actions=actions.astype(np.float32),
        rewards=np.zeros((count, horizon), np.float32),
        alive=alive,
        episode=np.arange(count),
    )


def test_the_error_near_a_policy_is_that_of_the_segments_that_act_like_it() -> None:
    """Half of the segments act like the policy throughout; of these half live for one step only."""
    count, std = 4 * MIN_SEGMENTS, np.array([2.0])
    actions = np.zeros((count, 2, 1))
    actions[::2, 1] = 2.1 * DISTANCE_OF_NEAR  # just too far, in deviations of 2
    actions[1::2, 1] = 1.9 * DISTANCE_OF_NEAR
    alive = np.ones((count, 2), np.bool_)
    error = np.tile([[0.5, 9.0], [0.5, 1.0]], (count // 2, 1))
    made = segments(actions, alive)
    near = error_near_policy(made, error, np.zeros((count, 2, 1), np.float32), action_std=std)
    assert near == (1.0, 5.0, 2, count // 2)
    alive[1 : 2 * MIN_SEGMENTS + 3, 1] = False  # leaves less than enough for the second step
    near = error_near_policy(made, error, np.zeros((count, 2, 1), np.float32), action_std=std)
    assert near == (0.5, 0.5, 1, count)
    far = np.full((count, 2, 1), 50.0, np.float32)
    assert error_near_policy(made, error, far, action_std=std) is None
