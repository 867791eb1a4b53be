import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.data.returns import best_episode_rows, discounted_return_scale, episode_returns, return_range_scale

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
    assert best_episode_rows(REWARD, EPISODE, fraction=fraction).tolist() == rows


def test_long_episodes_are_not_preferred_row_by_row():
    """Nine rows of reward 1 in one episode, a single row of reward 10 in the other: the second is better."""
    reward, episode = torch.tensor([1.0] * 9 + [10.0]), torch.tensor([0] * 9 + [1])
    assert best_episode_rows(reward, episode, fraction=0.5).tolist() == [9]


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
