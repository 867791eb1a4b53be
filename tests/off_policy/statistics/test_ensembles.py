import numpy as np
import pytest
import scipy.stats

from mbrl.core.estimates import Estimand, Estimate
from mbrl.off_policy.statistics.ensembles import (
    ensemble_estimate,
    member_interval,
    member_quantile,
    widened_by_members,
)


def test_the_error_is_that_of_the_members_and_of_the_starts():
    """Three members, two starts: means by member 2, 4, 9, by start 4 and 6."""
    values = np.array([[1.0, 3.0], [4.0, 4.0], [7.0, 11.0]])
    found = ensemble_estimate("fqe", "value", values, Estimand(0.9))
    between, within = np.var([2.0, 4.0, 9.0], ddof=1), np.var([4.0, 6.0], ddof=1) / 2
    assert found.point == pytest.approx(5.0)
    assert found.se == pytest.approx(np.sqrt(between + within))  # the members' part is not divided by 3
    half = scipy.stats.t.ppf(0.975, 2) * found.se
    assert found.ci95 == pytest.approx((5.0 - half, 5.0 + half))
    assert found.details["epistemic_se"] == pytest.approx(np.sqrt(between))
    assert found.details["members"].tolist() == [2.0, 4.0, 9.0]
    half_scale = ensemble_estimate("fqe", "value", values, Estimand(0.5, normalised=True))
    assert half_scale.ci95 == pytest.approx(tuple(0.5 * end for end in found.ci95))


def test_one_member_has_no_spread_and_broken_values_no_point():
    one = ensemble_estimate("fqe", "value", np.array([[1.0, 3.0]]), Estimand(0.9))
    assert one.point == 2.0
    assert not one.valid
    assert one.flags == ("no_epistemic",)
    assert np.isnan(member_interval(np.array([1.0]), 0.0)[0])
    broken = ensemble_estimate("fqe", "value", np.array([[1.0, np.inf], [0.0, 1.0]]), Estimand(0.9))
    assert np.isnan(broken.point)
    assert broken.flags == ("diverged",)


def test_from_thirty_members_on_the_quantile_is_the_normal_one():
    assert member_quantile(5) == pytest.approx(scipy.stats.t.ppf(0.975, 4))
    assert member_quantile(30) == pytest.approx(scipy.stats.norm.ppf(0.975))


def test_an_interval_is_widened_by_the_members_of_the_value() -> None:
    plain = Estimate(
        "dr", "hybrid", point=2.0, se=3.0, ci95=(-1.0, 8.0), method_of_ci="Student t", n_eff=9.0,
        estimand=Estimand(0.8),
    )  # fmt: skip
    points = np.array([0.0, 2.0, 4.0, 1.0, 3.0])  # a deviation of sqrt(2.5)
    found = widened_by_members(plain, points)
    reach = scipy.stats.t.ppf(0.975, 4) * np.sqrt(2.5)
    assert found.se == pytest.approx(np.sqrt(9.0 + 2.5))
    assert found.ci95 == pytest.approx((2.0 - np.hypot(3.0, reach), 2.0 + np.hypot(6.0, reach)))
    assert found.details["epistemic_se"] == pytest.approx(np.sqrt(2.5))
    assert found.method_of_ci == "Student t, widened by 5 members of the value"
