import numpy as np
import pytest

from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.marginal_ratio import MWLConfig
from tests.off_policy.estimators.test_marginal_evidence import LONG
from tests.off_policy.estimators.test_marginal_ratio import TABLE, by_ratios
from tests.off_policy.logs import acting, ask, context_of, empirical, half_table_log, lqg_log, unlogged
from tests.off_policy.lqg import scalar_task


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_good_ratios_pass_the_test(std: float) -> None:
    dataset, truth = unlogged(lqg_log(100, 50)), scalar_task().value(np.array([[0.9]]), std, 0.9)
    context = context_of(acting(0.9, std), dataset, Estimand(0.9), LONG)
    found = {name: ask(context, name) for name in ("mwl", "drl")}
    assert found["mwl"].valid
    assert found["mwl"].ci95[0] < truth < found["mwl"].ci95[1]
    assert found["drl"].valid


def test_values_of_a_few_updates_are_no_test() -> None:
    found = by_ratios("mwl", unlogged(lqg_log(100, 50)), acting(0.9, 0.3), Estimand(0.9), MWLConfig())
    assert found.flags == ("untested_weights",)


def test_the_estimate_is_the_value_of_its_ratios_and_its_error_that_of_their_influence():
    mdp, dataset, policy, table = half_table_log(n=60)
    estimand = Estimand(0.8, normalised=True)
    found = by_ratios("mwl", dataset, policy, estimand, TABLE)
    assert found.point == pytest.approx(empirical(dataset, mdp).value(table, estimand), rel=1e-8)
    assert found.per_episode is not None
    assert found.per_episode.mean() == pytest.approx(found.point, rel=1e-10)
    assert found.se == pytest.approx(found.per_episode.std(ddof=1) / np.sqrt(60), rel=1e-10)
