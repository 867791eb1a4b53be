import numpy as np
import pytest

from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES
from mbrl.off_policy.judgement.paired import Evidence, difference
from mbrl.off_policy.value.fqe_config import FQEConfig
from tests.off_policy.logs import ask, context_of, generator, table_log

FQE = FQEConfig(hidden=(8,), updates=20, batch_size=16)


def test_it_is_the_mean_over_episodes_of_the_first_value():
    _, dataset, policy, _ = table_log(n=60)
    context = context_of(policy, dataset, Estimand(0.8), FQE)
    value, found = context.values_on_log(generator()).value, ask(context, "dm")
    lengths = dataset.episode_lengths + 1
    starts = np.cumsum(lengths) - lengths
    assert found.point == pytest.approx(value[starts].mean(), rel=1e-12)
    np.testing.assert_allclose(found.per_episode, value[starts], rtol=1e-12)


def test_it_has_the_interval_of_the_same_number_under_another_name():
    _, dataset, policy, _ = table_log(n=60)
    context = context_of(policy, dataset, Estimand(0.8), FQE)
    found, fqe = ask(context, "dm"), ask(context, "fqe")
    assert found.point == pytest.approx(fqe.point, rel=1e-6)
    assert found.se == pytest.approx(fqe.se, rel=1e-6)
    assert found.ci95 == pytest.approx(fqe.ci95, rel=1e-6)
    assert not found.valid  # twenty updates settle nothing
    assert "updates" in (found.why_not or "")
    assert found.flags == (INVALID_VALUES,)


def test_its_difference_to_another_policy_remembers_the_spread_of_the_value():
    """Against logged returns: the members' spread enters both columns alike."""
    _, dataset, policy, _ = table_log(n=60)
    context = context_of(policy, dataset, Estimand(0.8), FQE)
    logged = Evidence(context.arrays(None).returns())
    ends = []
    for name in ("dm", "fqe"):
        evidence = Evidence.of(ask(context, name))
        assert evidence is not None
        ends.append(difference(evidence, logged).ends)
    assert ends[0] == pytest.approx(ends[1], rel=1e-6)
