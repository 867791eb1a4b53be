import numpy as np
import pytest

from mbrl.dynamics.assessment.baselines import LinearModel
from tests.dynamics.systems import CONTROL, MATRIX, make_dataset


def test_ridge_is_least_squares_where_data_are_plenty():
    rows = make_dataset(noise=0.1).transitions()
    features = np.concatenate((rows.observation, rows.action, np.ones((len(rows), 1))), 1).astype(np.float64)
    weights, *_ = np.linalg.lstsq(features, rows.next_observation.astype(np.float64), rcond=None)
    predicted = LinearModel.fit(rows).predict(rows.observation, rows.action)
    assert predicted == pytest.approx(features @ weights, abs=1e-4)


def test_ridge_recovers_a_linear_system():
    rng = np.random.default_rng(3)
    obs, action = rng.normal(size=(20, 2)), rng.uniform(-1, 1, (20, 1))
    predicted = LinearModel.fit(make_dataset(noise=0.0).transitions()).predict(obs, action)
    assert predicted == pytest.approx(obs @ MATRIX.T + action @ CONTROL.T, abs=1e-4)
