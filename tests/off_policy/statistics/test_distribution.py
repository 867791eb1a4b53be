import numpy as np
import pytest

from mbrl.off_policy.statistics.distribution import ReturnDistribution, cvar_payload

RETURNS = np.array([3.0, 1.0, 2.0, 4.0])


def test_equal_weights_give_the_distribution_of_the_sample():
    found = ReturnDistribution.make(RETURNS, np.ones(4))
    assert found.value.tolist() == [1, 2, 3, 4]
    assert found.cdf.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert [found.quantile(level) for level in (0.25, 0.26, 1.0)] == [1.0, 2.0, 4.0]
    assert found.mean() == pytest.approx(2.5)


def test_weights_move_the_mass():
    """Return 1 with weight 6, 2 with 2, 3 and 4 with 1 each: masses .6, .2, .1, .1."""
    found = ReturnDistribution.make(RETURNS, np.array([1.0, 6.0, 2.0, 1.0]))
    assert found.quantile(0.5) == 1.0
    assert found.quantile(0.8) == 2.0
    assert found.mean() == pytest.approx(0.6 + 0.4 + 0.3 + 0.4)
    assert found.cvar(0.7) == pytest.approx((0.6 * 1 + 0.1 * 2) / 0.7)  # a part of the atom at its edge


def test_weights_that_are_not_normalised_may_leave_the_unit_interval_and_are_clipped():
    found = ReturnDistribution.make(RETURNS, np.array([2.0, 2.0, 2.0, 2.0]), is_normalised=False)
    assert found.cdf.tolist() == [0.5, 1.0, 1.0, 1.0]


def test_the_payload_has_cvar_as_its_mean():
    quantile = ReturnDistribution.make(RETURNS, np.ones(4)).quantile(0.5)
    payload = cvar_payload(RETURNS, quantile, 0.5)
    assert payload.mean() == pytest.approx(1.5)  # the mean of the lower half
    for other in (0.0, 1.5, 3.0):  # the quantile is where the payload's mean is largest
        assert cvar_payload(RETURNS, other, 0.5).mean() <= payload.mean() + 1e-12
