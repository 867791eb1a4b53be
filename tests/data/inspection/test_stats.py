import dataclasses
import time

import numpy as np
import pytest

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.inspection.rows import (
    count_copies,
    count_inconsistent,
    count_jumps,
    count_still,
    find_reward_outliers,
    find_time_gaps,
    hash_rows,
)
from mbrl.data.inspection.stats import describe, measure_coverage, summarise
from tests.data.logs import make_dataset


def walk(seed: int = 0, steps: int = 400, episodes: int = 3, obs_dim: int = 3) -> Dataset:
    rng = np.random.default_rng(seed)
    made = tuple(
        Episode(
            observations=np.cumsum(0.1 * rng.normal(size=(steps + 1, obs_dim)), axis=0).astype(np.float32),
            actions=rng.uniform(-0.9, 0.9, (steps, 2)).astype(np.float32),
            rewards=rng.normal(size=steps).astype(np.float32),
            terminated=False,
            truncated=True,
        )
        for _ in range(episodes)
    )
    spec = SpaceSpec(obs_dim=obs_dim, act_dim=2, act_low=(-1.0, -1.0), act_high=(1.0, 1.0))
    return Dataset(episodes=made, spec=spec, info=DatasetInfo(name="walk"))


def with_first(data: Dataset, **changes: np.ndarray) -> Dataset:
    return dataclasses.replace(
        data, episodes=(dataclasses.replace(data.episodes[0], **changes), *data.episodes[1:])
    )


def test_describe():
    summary = describe(np.array([1.0, 2.0, 2.0, 7.0]))
    assert (summary.minimum, summary.median, summary.mean, summary.maximum) == (1, 2, 3, 7)
    assert summary.std == pytest.approx(np.sqrt(5.5))
    assert sum(summary.counts) == 4
    assert (summary.edges[0], summary.edges[-1]) == (1, 7)
    assert len(summary.edges) == len(summary.counts) + 1


@pytest.mark.parametrize("value", [0.0, 5.0, -1e20, 1e-30])
def test_describe_constant(value: float):
    summary = describe(np.full(3, value))
    assert (summary.minimum, summary.maximum, summary.std) == (value, value, 0.0)
    assert sum(summary.counts) == 3
    assert all(a < b for a, b in zip(summary.edges[:-1], summary.edges[1:], strict=True))


def test_hash_tells_rows_apart():
    rows = np.random.default_rng(0).normal(size=(100_000, 3)).astype(np.float32)
    assert len(np.unique(hash_rows(rows))) == 100_000
    assert hash_rows(rows)[0] == hash_rows(rows[:1].copy())[0]
    assert len(np.unique(hash_rows(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [-0.0, 1.0]])))) == 3


def test_copied_episodes_are_counted_once_each():
    data = walk()
    assert count_copies(data.transitions()) == 0
    twice = data.select([0, 1, 2, 1, 1])
    assert count_copies(twice.transitions()) == 2 * 400
    short = walk(steps=3, episodes=5)  # too short for a window: the whole episode must agree
    assert count_copies(short.transitions()) == 0
    assert count_copies(short.select([0, 1, 0, 2]).transitions()) == 3


def test_a_copied_stretch_within_an_episode_is_found():
    data = walk(episodes=2)
    source, target = data.episodes
    parts = {}
    for name in ("observations", "actions", "rewards"):
        values = getattr(target, name).copy()
        length = 31 if name == "observations" else 30
        values[100 : 100 + length] = getattr(source, name)[200 : 200 + length]
        parts[name] = values
    copied = dataclasses.replace(data, episodes=(source, dataclasses.replace(target, **parts)))
    assert count_copies(copied.transitions()) == 30


def test_equal_rows_of_a_machine_that_stands_are_stillness_and_no_copies():
    data = walk(steps=50, episodes=3)
    still = [
        dataclasses.replace(
            episode,
            observations=np.repeat(episode.observations[:1] * 0.0, 51, axis=0),
            actions=episode.actions * 0.0,
            rewards=episode.rewards * 0.0,
        )
        for episode in data.episodes
    ]
    rows = dataclasses.replace(data, episodes=tuple(still)).transitions()
    assert count_copies(rows) == 0
    assert count_still(rows) == 3 * 49
    assert count_still(data.transitions()) == 0


def with_rewards(rewards: np.ndarray, data: Dataset | None = None) -> Dataset:
    data = data or walk()
    return with_first(data, rewards=rewards.astype(np.float32))


@pytest.mark.parametrize("value", [1e12, -3e38])
def test_a_reward_far_beyond_all_others_is_named(value: float):
    rewards = walk().episodes[0].rewards.astype(np.float64)
    rewards[17] = value
    data = with_rewards(rewards)
    (outlier,) = find_reward_outliers(data.transitions())
    assert (outlier.episode, outlier.row) == (0, 17)
    assert outlier.reward == pytest.approx(value)
    others = np.delete(data.transitions().reward.astype(np.float64), 17)
    farthest = np.abs(others - np.median(data.transitions().reward)).max()
    assert outlier.factor == pytest.approx(abs(value) / farthest, rel=1e-3)


def test_two_equal_outliers_do_not_hide_each_other():
    rewards = walk().episodes[0].rewards.astype(np.float64)
    rewards[[17, 90]] = 1e12
    assert {outlier.row for outlier in find_reward_outliers(with_rewards(rewards).transitions())} == {17, 90}


def test_sparse_rewards_and_falls_are_no_outliers():
    sparse = np.zeros(400)
    sparse[[3, 80]] = 1.0
    data = walk()
    zero = tuple(dataclasses.replace(e, rewards=np.zeros(400, np.float32)) for e in data.episodes)
    rare = with_rewards(sparse, dataclasses.replace(data, episodes=zero))
    assert find_reward_outliers(rare.transitions()) == ()
    fall = data.episodes[0].rewards.copy()
    fall[-1] = -1e5
    fallen = dataclasses.replace(data.episodes[0], rewards=fall, terminated=True, truncated=False)
    ended = dataclasses.replace(data, episodes=(fallen, *data.episodes[1:]))
    assert find_reward_outliers(ended.transitions()) == ()


def test_pauses_between_time_stamps_are_found():
    data = walk()
    times = 0.1 * np.arange(401)
    assert find_time_gaps(data) is None
    assert find_time_gaps(with_first(data, timestamps=times.copy())) is None
    times[250:] += 1000.0
    times[380:] += 5.0
    gaps = find_time_gaps(with_first(data, timestamps=times))
    assert gaps is not None
    assert (gaps.count, gaps.episode, gaps.row) == (2, 0, 249)
    assert gaps.seconds == pytest.approx(1000.1)
    assert gaps.usual == pytest.approx(0.1)


def test_same_state_and_action_with_another_successor():
    data = walk()
    assert count_inconsistent(data.select([0, 1, 0]).transitions()) == 0
    obs = data.episodes[1].observations.copy()
    obs[:2] = data.episodes[0].observations[:2]
    obs[1] += 0.5
    actions = data.episodes[1].actions.copy()
    actions[0] = data.episodes[0].actions[0]
    changed = dataclasses.replace(data.episodes[1], observations=obs, actions=actions)
    odd = dataclasses.replace(data, episodes=(data.episodes[0], changed))
    assert count_inconsistent(odd.transitions()) == 1


def test_unflagged_resets_are_found():
    data = walk()
    assert count_jumps(data.transitions()) == 0
    obs = data.episodes[0].observations.copy()
    obs[200:] += 30.0
    assert count_jumps(with_first(data, observations=obs).transitions()) == 1


def test_measures_of_dimensions():
    data = walk()
    obs, actions = data.episodes[0].observations.copy(), data.episodes[0].actions.copy()
    obs[:, 1] = 4.0
    actions[:100, 0] = 1.0
    actions[100:150, 0] = -1.0
    single = with_first(data.select([0]), observations=obs, actions=actions)
    stats = summarise(single)
    assert [dimension.is_constant for dimension in stats.observations] == [False, True, False]
    assert [dimension.saturation for dimension in stats.actions] == [150 / 400, 0.0]
    assert stats.coverage.neighbour_median is None
    assert stats.num_transitions == 400


def test_effective_dimensions():
    """Independent coordinates count fully; copies of one coordinate count as one."""
    rng = np.random.default_rng(0)
    rows = walk(obs_dim=4, episodes=1, steps=5000).transitions()
    free = rng.normal(size=(5000, 4)).astype(np.float32)
    assert measure_coverage(dataclasses.replace(rows, observation=free)).effective_dims == pytest.approx(
        4, abs=0.05
    )
    copies = np.repeat(free[:, :1], 4, axis=1) * np.array([1, 10, -3, 0.1], dtype=np.float32)
    assert measure_coverage(dataclasses.replace(rows, observation=copies)).effective_dims == pytest.approx(
        1, abs=0.01
    )


def test_neighbours_belong_to_other_episodes():
    """Copies of an episode are at distance 0; a lone episode far away is not its own neighbour."""
    data = walk(episodes=2, steps=100)
    near = measure_coverage(data.select([0, 0]).transitions())
    assert near.neighbour_95 == pytest.approx(0.0, abs=2e-3)
    far = measure_coverage(data.transitions())
    assert far.neighbour_median is not None
    assert far.neighbour_median > 0.05


def test_counts_of_ends():
    stats = summarise(make_dataset((4, 3, 5), log_prob=True))
    assert (stats.terminated, stats.truncated, stats.unknown_successors) == (1, 2, 0)
    assert stats.has_behaviour_log_prob
    assert stats.lengths.maximum == 5


def test_a_large_log_takes_seconds():
    data = walk(episodes=100, steps=2000, obs_dim=11)
    start = time.process_time()
    summarise(data)
    assert time.process_time() - start < 5.0
