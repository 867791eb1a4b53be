import dataclasses

import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES
from mbrl.off_policy.estimators.direct_method import direct_method
from mbrl.off_policy.value.fqe_config import FQEConfig
from tests.off_policy.logs import ask, context_of, logged, table_log


def test_the_direct_method_is_the_mean_over_episodes_of_the_first_value():
    """Window starts or all transitions in place of first states are a known mistake."""
    arrays = logged()
    assert direct_method(arrays).point == pytest.approx(arrays.value[:, 0].mean(), rel=1e-12)
    with pytest.raises(EstimandError, match="dm needs Q and V"):
        direct_method(dataclasses.replace(arrays, has_values=False))


def test_it_knows_what_its_value_fit_leaves_open_and_whether_it_counts():
    _, dataset, policy, _ = table_log(n=60)
    config = FQEConfig(hidden=(8,), updates=20, batch_size=16)
    context = context_of(policy, dataset, Estimand(0.8), config)
    found, fqe = ask(context, "dm"), ask(context, "fqe")
    assert found.point == pytest.approx(fqe.point, rel=1e-6)
    assert found.se == pytest.approx(fqe.se, rel=1e-6)
    assert not found.valid  # twenty updates settle nothing
    assert "updates" in (found.why_not or "")
    assert found.flags == (INVALID_VALUES,)
