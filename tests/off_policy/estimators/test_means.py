import dataclasses

import numpy as np
import pytest
import scipy.stats

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.means import (
    mean_estimate,
    require_values,
    self_normalised_estimate,
    without_point,
)
from mbrl.off_policy.statistics.self_normalised import Term
from tests.off_policy.logs import logged


def test_a_mean_of_episodes_has_the_error_and_the_interval_of_a_mean():
    arrays, values = logged(), np.arange(40.0)
    found = mean_estimate("x", arrays, values, family="ratio", n_eff=12.0)
    assert (found.point, found.n_eff) == (19.5, 12.0)
    assert found.se == pytest.approx(scipy.stats.sem(values))
    assert found.ci95 == pytest.approx(scipy.stats.t.interval(0.95, 39, 19.5, found.se))
    half = dataclasses.replace(arrays, estimand=Estimand(0.5, horizon=6, normalised=True))
    assert mean_estimate("x", half, values, family="ratio", n_eff=1.0).point == 9.75
    both = dataclasses.replace(arrays, both_flags=1)
    assert mean_estimate("x", both, values, family="ratio", n_eff=1.0).flags == ("both_end_flags",)


def test_a_weight_that_overflowed_leaves_no_point():
    found = mean_estimate("x", logged(), np.full(40, np.nan), family="ratio", n_eff=1.0)
    assert np.isnan(found.point)
    assert (found.valid, found.why_not) == (False, "weights_overflow")
    assert without_point("x", logged(), "ratio", "all_weights_zero@3").flags == ("all_weights_zero",)


def test_a_normalised_mean_has_the_error_of_the_delta_method():
    arrays, rng = logged(), np.random.default_rng(0)
    weight, payload = rng.uniform(0.5, 2.0, 40), rng.normal(size=40)
    share = weight / weight.sum()

    def terms():
        yield Term(share[:, None], payload[:, None], np.ones(1))

    found = self_normalised_estimate("x", arrays, terms)
    point = share @ payload
    assert found.point == pytest.approx(point, rel=1e-12)
    assert found.se == pytest.approx(np.sqrt((share**2 * (payload - point) ** 2).sum()), rel=1e-12)


def test_values_are_asked_for_by_name():
    with pytest.raises(EstimandError, match="dm needs Q and V"):
        require_values(dataclasses.replace(logged(), has_values=False), "dm")
    require_values(logged(), "dm")
