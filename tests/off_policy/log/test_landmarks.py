import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.off_policy.log.landmarks import LandmarkBasis, Points
from tests.off_policy.logs import generator


def test_features_reproduce_the_kernel_at_landmarks():
    rng = np.random.default_rng(0)
    points = Points(rng.normal(size=(30, 2)), rng.normal(size=(30, 1)))
    basis = LandmarkBasis.fit(points, count=30, shape="rbf", is_discrete=False, generator=generator())
    joined = np.concatenate([points.state, points.action], 1)
    z = (joined - joined.mean(0)) / joined.std(0)
    squares = np.square(z[:, None] - z[None]).sum(-1)
    apart = np.sqrt(squares[~np.eye(30, dtype=bool)])
    assert basis.width == pytest.approx(np.median(apart), rel=1e-6)
    kernel = 1 + np.exp(-squares / (2 * basis.width**2))
    np.testing.assert_allclose(basis(points) @ basis(points).T, kernel, atol=1e-6)


def test_features_of_probabilities_are_means_over_actions():
    rng, actions = np.random.default_rng(0), np.eye(3)
    points = Points(rng.normal(size=(30, 2)), actions[rng.integers(3, size=30)])
    basis = LandmarkBasis.fit(points, count=20, shape="rbf", is_discrete=True, generator=generator())
    state, weights = rng.normal(size=(5, 2)), rng.dirichlet(np.ones(3), size=5)
    parts = [basis(Points(state, np.tile(actions[a], (5, 1)))) for a in range(3)]
    mean = sum(weights[:, a, None] * parts[a] for a in range(3))
    np.testing.assert_allclose(basis(Points(state, weights)), mean, atol=1e-12)


def test_a_table_has_one_feature_for_each_different_point():
    points = Points(np.array([[0.0], [1.0], [0.0], [2.0]]), np.array([[1.0], [1.0], [1.0], [1.0]]))
    basis = LandmarkBasis.fit(points, count=3, shape="delta", is_discrete=False, generator=generator())
    assert basis(points).tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]
    with pytest.raises(DataError, match="3 different"):
        LandmarkBasis.fit(points, count=2, shape="delta", is_discrete=False, generator=generator())
