import dataclasses
import time

import numpy as np
import pytest

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.inspection.stats import (
    count_duplicates,
    count_inconsistent,
    count_jumps,
    describe,
    hash_rows,
    measure_coverage,
    summarise,
)
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


def test_duplicates_are_counted_once_each():
    data = walk()
    assert count_duplicates(data.transitions()) == 0
    twice = data.select([0, 1, 2, 1, 1])
    assert count_duplicates(twice.transitions()) == 2 * 400


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
