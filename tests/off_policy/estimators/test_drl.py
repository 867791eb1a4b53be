import numpy as np
import pytest
import torch

from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import Policy
from mbrl.data.dataset import Dataset
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES, NO_CROSSFIT
from mbrl.off_policy.estimators.marginal_ratio import MWLConfig
from tests.off_policy.estimators.test_marginal_evidence import LONG
from tests.off_policy.estimators.test_marginal_ratio import ESTIMAND, TABLE, by_ratios
from tests.off_policy.logs import acting, ask, context_of, empirical, half_table_log, lqg_log, unlogged
from tests.off_policy.lqg import LinearPolicy, scalar_task


def fitted(dataset: Dataset, policy: Policy, config: MWLConfig) -> dict[str, Estimate]:
    """Answers that rest on values which had time."""
    context = context_of(policy, dataset, Estimand(0.9), LONG, mwl=config)
    return {name: ask(context, name) for name in ("mwl", "drl")}


@pytest.mark.parametrize("discount", [0.5, 0.97])
def test_right_ratios_forgive_any_value(discount: float) -> None:
    mdp, dataset, policy, table = half_table_log()
    estimand = Estimand(discount)
    found = by_ratios("drl", dataset, policy, estimand, TABLE)
    assert found.point == pytest.approx(empirical(dataset, mdp).value(table, estimand), rel=1e-5)
    assert found.details["epistemic_se"] < 1e-5 * abs(found.point)  # all members say the same
    assert found.family == "hybrid"
    assert NO_CROSSFIT in found.flags


@pytest.mark.parametrize("std", [0.0, 0.3])
def test_a_right_value_forgives_poor_ratios(std: float) -> None:
    """A kernel of two landmarks cannot express the weights; the value's moments tell."""
    dataset, truth = unlogged(lqg_log(100, 50)), scalar_task().value(np.array([[0.1]]), std, 0.9)
    found = fitted(dataset, acting(0.1, std), MWLConfig(landmarks=2))
    assert abs(found["mwl"].point - truth) > 0.5 * abs(truth)
    assert abs(found["drl"].point - truth) < 0.1 * abs(truth)
    assert found["drl"].ci95[0] < truth < found["drl"].ci95[1]
    assert found["mwl"].details["imbalance"] < 1e-6  # its two moments are matched, and mean nothing
    assert found["mwl"].flags == ("unbalanced_value",)


def test_without_either_support_the_correction_does_not_count() -> None:
    far = by_ratios("drl", lqg_log(40), LinearPolicy(torch.tensor([[5.0]]), 8.0), ESTIMAND, MWLConfig())
    assert not far.valid
    assert {"unbalanced", INVALID_VALUES} <= set(far.flags)
