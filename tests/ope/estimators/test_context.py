import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch

from mbrl.core.errors import ConfigError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.core.protocols import Estimator
from mbrl.ope.estimators.context import (
    ESTIMATORS,
    NO_CROSSFIT,
    VALUES_IN_DOUBT,
    ArrayEstimator,
    EstimatorContext,
    fit_values,
    pad_ratios,
    ratio_arrays,
)
from mbrl.ope.log.policies import DeterministicMode
from mbrl.ope.statistics.ensembles import widened_by_members
from mbrl.ope.value.fqe import FQEConfig
from tests.ope.logs import generator, table_log
from tests.ope.lqg import NoisyLinearPolicy, scalar_task

FQE = FQEConfig(hidden=(8,), updates=20, batch_size=16)
OTHERS = ("dm", "fqe", "mwl", "drl")
RATIO = ("is", "pdis", "wis", "pdwis", "dr", "wdr", "magic")


def context(estimand: Estimand) -> EstimatorContext:
    return EstimatorContext.make(estimand, FQE)


def test_every_entry_keeps_the_protocol_and_scales_with_the_reward():
    _, dataset, policy, _ = table_log(n=30)
    episodes = [dataclasses.replace(e, rewards=np.float32(4.0) * e.rewards) for e in dataset.episodes]
    larger = dataclasses.replace(dataset, episodes=tuple(episodes))
    first, second = context(Estimand(0.8)), context(Estimand(0.8))
    assert {*RATIO, *OTHERS} <= set(ESTIMATORS.names())
    for name in (*RATIO, *OTHERS):
        small, large = ESTIMATORS.get(name)(first), ESTIMATORS.get(name)(second)
        assert isinstance(small, Estimator)
        before = small.estimate(policy, dataset, generator=generator())
        after = large.estimate(policy, larger, generator=generator())
        assert before.name == name
        assert after.point == pytest.approx(4 * before.point, rel=1e-6)
        assert (NO_CROSSFIT in before.flags) == (name in {"dr", "wdr", "magic", "drl"})


@pytest.mark.parametrize("name", RATIO)
def test_a_deterministic_policy_has_no_ratio_and_is_told_what_to_use(name):
    task = scalar_task()
    noisy = NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)
    dataset = task.simulate(noisy, 5, 3, 0)
    estimator = ESTIMATORS.get(name)(context(Estimand(1.0, horizon=3)))
    with pytest.raises(UndefinedRatioError, match="fqe"):
        estimator.estimate(DeterministicMode(noisy), dataset, generator=generator())


def test_densities_on_a_box_that_is_not_the_unit_box_give_the_closed_form():
    """Log and policy both refer to the action scaled to [-1, 1]; the box here is 8 wide."""
    task = scalar_task()
    dataset = task.simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 3000, 3, 0)
    policy = NoisyLinearPolicy(torch.tensor([[0.5]]), 8.0, 0.35)
    estimand = Estimand(1.0, horizon=3)
    mean, square, truth, closed = 1.0, 1.1, 0.0, 0.9 - 0.5 * 0.5
    for _ in range(3):
        truth -= square + 0.1 * (0.25 * square + 0.35**2)
        mean, square = closed * mean, closed**2 * square + 0.25 * 0.35**2 + 0.01
    estimate = ESTIMATORS.get("pdis")(context(estimand)).estimate(policy, dataset, generator=generator())
    assert abs(estimate.point - truth) < 4 * estimate.se < 0.05 * abs(truth) * 4


@pytest.mark.parametrize(("episodes", "are_ratios_enough"), [(12, False), (200, True)])
def test_what_rests_on_values_that_did_not_settle_does_not_count(episodes: int, are_ratios_enough: bool):
    """Two updates settle nothing: DM falls with them, doubly robust estimates unless many episodes speak."""
    _, dataset, policy, _ = table_log(n=episodes)
    shared = EstimatorContext.make(Estimand(0.8, horizon=2), FQE.model_copy(update={"updates": 2}))
    found = {
        name: ESTIMATORS.get(name)(shared).estimate(policy, dataset, generator=generator())
        for name in ("dm", "dr", "wdr", "pdwis")
    }
    assert (found["dr"].n_eff >= 30) == are_ratios_enough
    assert not found["dm"].valid
    assert "updates" in (found["dm"].why_not or "")
    for name in ("dr", "wdr"):
        assert (VALUES_IN_DOUBT in found[name].flags) == (not are_ratios_enough)
        assert found[name].valid == are_ratios_enough
    assert VALUES_IN_DOUBT not in found["pdwis"].flags


def test_values_of_unseen_episodes_need_no_warning():
    _, dataset, policy, _ = table_log(n=12)
    shared = EstimatorContext.make(Estimand(0.8), FQE, crossfit=3)
    for name in ("dr", "wdr", "magic"):
        estimate = ESTIMATORS.get(name)(shared).estimate(policy, dataset, generator=generator())
        assert NO_CROSSFIT not in estimate.flags
    across = shared.critics.fit_across(policy, dataset, generator())
    assert across.fold is not None
    assert np.bincount(across.fold).tolist() == [4, 4, 4]
    plain = shared.critics.fit(policy, dataset, generator())
    assert plain.fold is None
    for wrong in (1, 6):
        with pytest.raises(ConfigError, match="2 to 5 folds"):
            EstimatorContext.make(Estimand(0.8), FQE, crossfit=wrong)
    dm = ESTIMATORS.get("dm")(shared).estimate(policy, dataset, generator=generator())
    assert dm.point == pytest.approx(plain.estimate().point, rel=1e-6)


def test_a_value_is_fitted_once_for_all_who_ask():
    _, dataset, policy, _ = table_log(n=10)
    shared = context(Estimand(0.8))
    first = shared.critics.fit(policy, dataset, generator(0))
    assert shared.critics.fit(policy, dataset, generator(1)) is first
    fqe = ESTIMATORS.get("fqe")(shared).estimate(policy, dataset, generator=generator(2))
    assert fqe.point == first.estimate().point
    logged = shared.critics.members_on_log(first, dataset, generator(3))
    assert shared.critics.members_on_log(first, dataset, generator(4)) is logged
    np.testing.assert_array_equal(logged[0], first.members_on_log(dataset, generator=generator())[0])


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


@pytest.mark.parametrize("name", ["dm", "dr", "wdr", "magic"])
def test_estimates_from_values_know_that_these_are_uncertain(name: str) -> None:
    """The members' own answers, worked out apart; cross-fitted members value some episodes only."""
    _, dataset, policy, _ = table_log(n=60)
    shared = context(Estimand(0.8))
    estimator = ESTIMATORS.get(name)(shared)
    found = estimator.estimate(policy, dataset, generator=generator())
    values = fit_values(policy, dataset, shared, generator=generator())
    assert isinstance(estimator, ArrayEstimator)
    answers = [
        estimator.compute(ratio_arrays(policy, dataset, shared, values=one))
        if estimator.needs_ratio
        else estimator.compute(pad_ratios(None, dataset, shared, values=one))
        for one in (values, *values.members)
    ]
    spread = np.std([answer.point for answer in answers[1:]], ddof=1)
    assert len(answers) == 6
    assert found.point == pytest.approx(answers[0].point, rel=1e-9)
    assert found.se == pytest.approx(np.hypot(answers[0].se, spread), rel=1e-6)
    assert found.ci95[0] < answers[0].ci95[0]
    assert found.ci95[1] > answers[0].ci95[1]
    if name == "dm":
        fqe = shared.critics.fit(policy, dataset, generator()).estimate()
        assert found.se == pytest.approx(fqe.se, rel=1e-6)
    elif name == "dr":
        across = ESTIMATORS.get(name)(EstimatorContext.make(Estimand(0.8), FQE, crossfit=3))
        assert "members" not in across.estimate(policy, dataset, generator=generator()).method_of_ci
