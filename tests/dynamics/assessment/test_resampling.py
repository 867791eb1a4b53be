import numpy as np
import pytest
import scipy.stats
import torch

from mbrl.dynamics.assessment.resampling import episode_weights, rank_correlation, weighted_medians


def test_whole_episodes_are_drawn():
    episode = np.array([4, 4, 4, 9, 9, 2])
    weights, column = episode_weights(episode, 500, torch.Generator().manual_seed(0))
    assert weights.shape == (500, 3)
    assert np.all(weights.sum(1) == 3)
    assert weights.mean(0) == pytest.approx([1.0, 1.0, 1.0], abs=0.12)
    assert column.tolist() == [1, 1, 1, 2, 2, 0]


def test_weighted_median_is_the_lower_median_of_repeated_values():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(31)
    weights = rng.integers(0, 4, (20, 31)).astype(float)
    for row, result in zip(weights, weighted_medians(values, weights), strict=True):
        repeated = np.sort(np.repeat(values, row.astype(int)))
        assert result == repeated[(len(repeated) - 1) // 2]


def test_nothing_drawn_has_no_median():
    assert np.isnan(weighted_medians(np.array([1.0, 2.0]), np.zeros((1, 2)))[0])


def test_rank_correlation_is_spearman_with_ties():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 10, 300).astype(float)
    second = first + rng.normal(0, 4, 300)
    weights, column = episode_weights(np.repeat(np.arange(30), 10), 200, torch.Generator().manual_seed(0))
    value, low, high = rank_correlation(first, second, weights=weights, column=column)
    assert value == pytest.approx(scipy.stats.spearmanr(first, second).statistic, abs=1e-10)
    assert low < value < high
    assert high - low < 0.3


def test_a_constant_has_no_rank_correlation():
    weights, column = episode_weights(np.arange(20), 10, torch.Generator().manual_seed(0))
    values = np.random.default_rng(0).standard_normal(20)
    assert rank_correlation(np.ones(20), values, weights=weights, column=column) == (0.0, 0.0, 0.0)
