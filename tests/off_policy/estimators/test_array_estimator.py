import functools

import numpy as np
import pytest
import torch

from mbrl.core.errors import UndefinedRatioError
from mbrl.core.estimates import Estimand
from mbrl.off_policy.estimators.array_estimator import INVALID_VALUES, NO_CROSSFIT
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.magic import magic
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from mbrl.off_policy.log.policies import DeterministicMode
from mbrl.off_policy.log.weights import WeightTransform
from mbrl.off_policy.value.fqe_config import FQEConfig
from tests.off_policy.logs import ask, context_of, generator, linear, lqg_log, table_log
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task

FQE = FQEConfig(hidden=(8,), updates=20, batch_size=16)
RATIO = ("is", "pdis", "wis", "pdwis", "dr", "wdr", "magic")
CORRECTED = {"dr": doubly_robust, "wdr": weighted_doubly_robust, "magic": magic}


@pytest.mark.parametrize("name", RATIO)
def test_a_deterministic_policy_has_no_ratio_and_is_told_what_to_use(name):
    context = context_of(DeterministicMode(linear(0.4, 0.4)), lqg_log(5, 3), Estimand(1.0, horizon=3), FQE)
    with pytest.raises(UndefinedRatioError, match="fqe"):
        ask(context, name)


def test_densities_on_a_box_that_is_not_the_unit_box_give_the_closed_form():
    """Log and policy both refer to the action scaled to [-1, 1]; the box here is 8 wide."""
    dataset = scalar_task().simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 3000, 3, 0)
    policy = NoisyLinearPolicy(torch.tensor([[0.5]]), 8.0, 0.35)
    mean, square, truth, closed = 1.0, 1.1, 0.0, 0.9 - 0.5 * 0.5
    for _ in range(3):
        truth -= square + 0.1 * (0.25 * square + 0.35**2)
        mean, square = closed * mean, closed**2 * square + 0.25 * 0.35**2 + 0.01
    estimate = ask(context_of(policy, dataset, Estimand(1.0, horizon=3), FQE), "pdis")
    assert abs(estimate.point - truth) < 4 * estimate.se < 0.05 * abs(truth) * 4


@pytest.mark.parametrize(("episodes", "are_ratios_enough"), [(12, False), (200, True)])
def test_what_rests_on_values_that_did_not_settle_does_not_count(episodes: int, are_ratios_enough: bool):
    """Two updates settle nothing: doubly robust estimates fall with them, unless many episodes speak."""
    _, dataset, policy, _ = table_log(n=episodes)
    context = context_of(policy, dataset, Estimand(0.8, horizon=2), FQE.model_copy(update={"updates": 2}))
    for name in ("dr", "wdr"):
        found = ask(context, name)
        assert (found.n_eff >= 30) == are_ratios_enough
        assert (INVALID_VALUES in found.flags) == (not are_ratios_enough)
        assert found.valid == are_ratios_enough
    assert INVALID_VALUES not in ask(context, "pdwis").flags


@pytest.mark.parametrize("name", list(CORRECTED))
def test_the_spread_of_the_members_answers_enters(name: str) -> None:
    """The members' own answers, worked out apart."""
    _, dataset, policy, _ = table_log(n=60)
    context = context_of(policy, dataset, Estimand(0.8), FQE)
    found = ask(context, name)
    values = context.values_on_log(generator())
    answers = [CORRECTED[name](context.ratio_arrays(one)) for one in (values, *values.members)]
    spread = np.std([answer.point for answer in answers[1:]], ddof=1)
    assert len(answers) == 6
    assert found.point == pytest.approx(answers[0].point, rel=1e-9)
    assert found.se == pytest.approx(np.hypot(answers[0].se, spread), rel=1e-6)
    assert found.ci95[0] < answers[0].ci95[0]
    assert found.ci95[1] > answers[0].ci95[1]
    assert NO_CROSSFIT in found.flags


def test_cross_fitted_members_value_some_episodes_only_and_widen_nothing():
    _, dataset, policy, _ = table_log(n=12)
    context = context_of(policy, dataset, Estimand(0.8), FQE, crossfit=3)
    for name in CORRECTED:
        found = ask(context, name)
        assert NO_CROSSFIT not in found.flags
        assert "members" not in found.method_of_ci


@pytest.mark.parametrize("name", ["pdis", "dr", "wdr"])
def test_changes_of_the_weights_are_those_of_the_settings(name: str):
    _, dataset, policy, _ = table_log(n=60)
    plain = context_of(policy, dataset, Estimand(0.8, horizon=4), FQE)
    capped = context_of(policy, dataset, Estimand(0.8, horizon=4), FQE, weights=WeightTransform(cap=1.5))
    found = ask(capped, name)
    assert found.n_eff > ask(plain, name).n_eff
    if name in CORRECTED:
        compute = functools.partial(CORRECTED[name], transform=WeightTransform(cap=1.5))
        assert found.point == compute(capped.ratio_arrays(capped.values_on_log(generator()))).point
