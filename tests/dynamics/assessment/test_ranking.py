import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.dynamics.assessment.one_step import HeldOutSteps
from mbrl.dynamics.assessment.ranking import distance_to_training, rank_errors
from tests.dynamics.systems import linear_ensemble, make_dataset


def steps_with_error(error):
    """Two members whose average is off by `error` in both dimensions, and by 100 in the reward."""
    target = torch.zeros(len(error), 3, dtype=torch.float64)
    mean = torch.tensor(error)[:, None] * torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    mean[:, 2] = 100.0
    return HeldOutSteps(torch.stack((mean - 0.5, mean + 0.5)), torch.ones(2, len(error), 3).double(), target)


def rank(uncertainty, error, distance):
    return rank_errors(
        uncertainty,
        steps_with_error(error),
        distance=distance,
        episode=np.arange(len(error)) // 20,
        draws=50,
        rng=RngStreams(0),
    )


def test_a_measure_that_is_the_error_ranks_it_and_its_opposite_does_not():
    rng = np.random.default_rng(0)
    error, distance = rng.exponential(size=400), rng.uniform(size=400)
    found = rank({"same": error**3, "opposite": -error, "noise": rng.normal(size=400)}, error, distance)
    assert found["same"].value == pytest.approx(1.0)
    assert found["same"].low == pytest.approx(1.0)
    assert found["opposite"].value == pytest.approx(-1.0)
    assert found["noise"].low < 0 < found["noise"].high


def test_the_far_tenth_is_ranked_by_itself():
    rng = np.random.default_rng(1)
    error, distance = rng.exponential(size=400), np.arange(400.0)
    mixed = np.where(distance >= np.quantile(distance, 0.9), -error, 100 + error)
    found = rank({"mixed": mixed}, error, distance)["mixed"]
    assert found.far_value == pytest.approx(-1.0)
    assert found.value > 0.5


def test_distance_is_in_deviations_of_the_inputs():
    train = make_dataset(episodes=20).transitions()
    model = linear_ensemble()  # its inputs are not scaled
    assert distance_to_training(model, train, train.select(np.arange(3))).shape == (len(train),)
    one = train.select(np.array([0]))
    row = np.concatenate((train.observation, train.action), 1).astype(float)
    expected = np.linalg.norm(row - row[0], axis=1) / np.sqrt(3)
    assert distance_to_training(model, train, one) == pytest.approx(expected, abs=2e-3)
