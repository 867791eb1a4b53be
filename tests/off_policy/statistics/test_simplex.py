import numpy as np
import pytest

from mbrl.off_policy.statistics.simplex import least_error_blend


def test_the_blend_is_optimal_on_the_simplex():
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 25):
        root = rng.normal(size=(size, max(1, size // 2)))  # rank-deficient on purpose
        error = root @ root.T
        blend = least_error_blend(error)
        gradient = error @ blend / np.trace(error)
        assert blend.sum() == pytest.approx(1.0)
        assert blend @ gradient <= gradient.min() + 1e-8
        for other in rng.dirichlet(np.ones(size), 50):
            assert blend @ error @ blend <= other @ error @ other + 1e-8 * np.trace(error)
    np.testing.assert_allclose(least_error_blend(np.diag([1.0, 3.0])), [0.75, 0.25], atol=1e-10)
    assert least_error_blend(np.zeros((3, 3))).tolist() == [0, 0, 1]
