import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.returns import (
    LoggedEpisodes,
    best_episodes,
    discounted_return_scale,
    episode_returns,
    return_range_scale,
)
from mbrl.data.splits import split_blocks
from tests.data.logs import SPEC, make_episode

REWARD = torch.tensor([1.0, 1.0, 5.0, -1.0, 0.0, 0.0, 2.0])
EPISODE = torch.tensor([0, 0, 1, 2, 2, 2, 3])


def test_returns_are_undiscounted_sums_in_float64():
    returns = episode_returns(REWARD, EPISODE)
    assert returns.tolist() == [2.0, 5.0, -1.0, 2.0]
    assert returns.dtype == torch.float64
    many = episode_returns(torch.full((2000,), 0.1), torch.zeros(2000, dtype=torch.int64))
    assert float(many) == pytest.approx(2000 * float(torch.tensor(0.1)), rel=1e-12)


@pytest.mark.parametrize(
    ("fraction", "rows"),
    [(0.01, [2]), (0.25, [2]), (0.5, [0, 1, 2]), (0.75, [0, 1, 2, 6]), (1.0, [0, 1, 2, 3, 4, 5, 6])],
)
def test_the_best_episodes_are_kept_whole_ties_by_age(fraction, rows):
    is_best = best_episodes(episode_returns(REWARD, EPISODE), fraction=fraction)
    assert is_best[EPISODE].nonzero()[:, 0].tolist() == rows


def test_long_episodes_are_not_preferred_row_by_row():
    """Nine rows of reward 1 in one episode, a single row of reward 10 in the other: the second is better."""
    reward, episode = torch.tensor([1.0] * 9 + [10.0]), torch.tensor([0] * 9 + [1])
    assert best_episodes(episode_returns(reward, episode), fraction=0.5).tolist() == [False, True]


def test_rewards_are_scaled_to_a_return_range_of_a_thousand():
    scale = return_range_scale(REWARD, EPISODE)
    returns = episode_returns(REWARD * scale, EPISODE)
    assert float(returns.max() - returns.min()) == pytest.approx(1000.0, rel=1e-6)
    with pytest.raises(DataError, match="same return"):
        return_range_scale(torch.ones(4), torch.tensor([0, 0, 1, 1]))


def test_the_scale_is_the_spread_of_discounted_returns():
    reward, episode = torch.tensor([1.0, 2.0, 3.0, 5.0, 1.0]), torch.tensor([0, 0, 1, 1, 1])
    first, second = 1 + 0.5 * 2, 3 + 0.5 * 5 + 0.25 * 1
    found = discounted_return_scale(reward, episode, discount=0.5)
    assert found == pytest.approx(abs(first - second) / 2)
    alike = discounted_return_scale(torch.tensor([2.0, -2.0]), torch.tensor([0, 1]) * 0, discount=0.5)
    assert alike == pytest.approx(1.0)
    assert discounted_return_scale(torch.zeros(3), torch.arange(3), discount=0.9) == 1.0


def few_long_episodes() -> Dataset:
    """Four episodes of 400 steps with returns 0, 200, 400, 600; observation = 1000 * episode + step."""
    episodes = []
    for index in range(4):
        count = 1000 * index + np.arange(401, dtype=np.float32)
        base = make_episode(index, 400, reward=0.5 * index)
        episodes.append(dataclasses.replace(base, observations=np.stack([count, -count], axis=1)))
    return Dataset(tuple(episodes), SPEC, DatasetInfo(name="few"))


def test_blocks_have_the_returns_and_first_states_of_their_whole_episodes():
    dataset = few_long_episodes()
    train = split_blocks(dataset, generator=torch.Generator().manual_seed(0), gap=10).train
    assert len(train) > 4  # it really was cut
    blocks, whole = LoggedEpisodes.of(train), LoggedEpisodes.of(dataset)
    assert blocks.return_range_scale() == whole.return_range_scale() == pytest.approx(1000 / 600)
    assert blocks.discounted_return_scale(discount=0.9) == whole.discounted_return_scale(discount=0.9)
    assert blocks.first_observation[:, 0].tolist() == [0, 1000, 2000, 3000]
    best = train.transitions().observation[blocks.best_rows(fraction=0.25).numpy(), 0]
    assert set(best // 1000) == {3}  # the best quarter of four episodes is one of them, with all its blocks
    assert len(best) == sum(len(e) for e in train.episodes if e.logged is dataset.episodes[3])


def test_rows_that_are_whole_episodes_need_no_dataset():
    dataset = few_long_episodes()
    rows = dataset.transitions()
    made = LoggedEpisodes.of_rows(rows.to_batch(), torch.tensor(rows.episode))
    for field in dataclasses.fields(LoggedEpisodes):
        assert torch.equal(getattr(made, field.name), getattr(LoggedEpisodes.of(dataset), field.name))
