import dataclasses
import functools

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError, UndefinedRatioError
from mbrl.core.estimates import Estimand, Estimate
from mbrl.off_policy.estimators.array_estimator import (
    INVALID_VALUES,
    NO_CROSSFIT,
    judge_corrected_values,
    judge_ratios,
)
from mbrl.off_policy.estimators.context import EstimatorContext
from mbrl.off_policy.estimators.doubly_robust import doubly_robust
from mbrl.off_policy.estimators.magic import magic
from mbrl.off_policy.estimators.weighted_doubly_robust import weighted_doubly_robust
from mbrl.off_policy.log.policies import DeterministicMode
from mbrl.off_policy.log.weight_evidence import WeightEvidence
from mbrl.off_policy.log.weights import WeightTransform
from mbrl.off_policy.value.fqe import fit_fqe
from mbrl.off_policy.value.fqe_config import FQEConfig
from mbrl.off_policy.value.fqe_result import FQEResult
from tests.off_policy.logs import TablePolicy, ask, context_of, generator, linear, lqg_log, table_log
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task
from tests.off_policy.tabular import dataset_of, episodes_of, random_mdp, random_policy, simulate

FQE = FQEConfig(hidden=(8,), updates=20, batch_size=16)
SAMPLING = ("is", "pdis", "wis", "pdwis")
RATIO = (*SAMPLING, "dr", "wdr", "magic")
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


def far_log(n: int, steps: int, *, policy: TablePolicy | None = None) -> EstimatorContext:
    """A table whose episodes never end, and a policy that is far from who acted."""
    mdp = random_mdp(0, end=0.0)
    log = simulate(mdp, random_policy(1, mdp), n, steps, np.random.default_rng(0))
    dataset = dataset_of(episodes_of(log, mdp, random_policy(1, mdp)), mdp)
    evaluated = random_policy(2, mdp, sharpness=2.0)
    policy = policy or TablePolicy(torch.tensor(evaluated, dtype=torch.float32))
    return context_of(policy, dataset, Estimand(1.0, horizon=steps), FQE)


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.parametrize(("n", "steps"), [(200, 1000), (1, 5), (200, 40)])
def test_an_estimate_that_few_episodes_carry_does_not_count(name: str, n: int, steps: int):
    """A thousand steps leave all weight to one episode; intervals of such weights are tiny for no reason."""
    found = ask(far_log(n, steps), name)
    assert not found.valid
    assert found.n_eff < 10
    assert "low_ess" in found.flags
    assert "effective episodes" in (found.why_not or "")


@pytest.mark.parametrize("name", SAMPLING)
def test_a_policy_that_never_does_what_was_logged_is_worth_nothing_that_is_known(name: str):
    """IS would say 0, with the interval [0, 0]."""
    mdp, behaviour = random_mdp(0), np.tile([0.5, 0.5, 0.0], (4, 1))
    log = simulate(mdp, behaviour, 100, 4, np.random.default_rng(0))
    with np.errstate(divide="ignore"):
        dataset = dataset_of(episodes_of(log, mdp, behaviour), mdp)
    policy = TablePolicy(torch.tensor([[0.0, 0.0, 1.0]]).repeat(4, 1))
    found = ask(context_of(policy, dataset, Estimand(0.9, horizon=4), FQE), name)
    assert not found.valid
    assert "all_weights_zero" in found.flags
    assert found.why_not


@pytest.mark.parametrize("name", RATIO)
def test_no_estimate_counts_without_an_interval(name: str):
    point = Estimate(
        name, "ratio", point=2.0, se=np.nan, ci95=(np.nan, np.nan), method_of_ci="none: no spread",
        n_eff=99.0, estimand=Estimand(0.8),
    )  # fmt: skip
    good = WeightEvidence(99.0, 0.02, 0.1)
    judges = (functools.partial(judge_ratios), functools.partial(judge_corrected_values, why_not_values=None))
    for judge in judges:
        found = judge(point, good)
        assert not found.valid
        assert "no_interval" in found.flags
        assert judge(dataclasses.replace(point, se=1.0, ci95=(0.0, 4.0)), good).valid


HEAVY, GOOD = WeightEvidence(51.0, 0.09, 1.95), WeightEvidence(51.0, 0.09, 0.2)


@pytest.mark.parametrize(
    ("evidence", "why_not_values", "details", "is_valid", "flags"),
    [
        (GOOD, "it moved", {}, True, set()),  # the ratios hold
        (HEAVY, None, {}, True, {"heavy_tail"}),  # the values hold
        (HEAVY, None, {"is_self_normalised": True}, False, {"heavy_tail"}),  # but the interval does not
        (HEAVY, "it moved", {}, False, {"heavy_tail", INVALID_VALUES}),
        (GOOD, "it moved", {"value_share": 0.9}, False, {INVALID_VALUES}),  # MAGIC that is nearly DM
        (GOOD, "it moved", {"tail_share": 0.2}, False, {INVALID_VALUES}),
        (GOOD, None, {"value_share": 1.0}, True, set()),
        (GOOD, "it moved", {"value_share": 0.05}, True, set()),
    ],
)
def test_a_correction_counts_where_its_ratios_or_its_values_do(
    evidence: WeightEvidence, why_not_values: str | None, details: dict, is_valid: bool, flags: set[str]
):
    point = Estimate(
        "magic", "hybrid", point=2.0, se=1.0, ci95=(0.0, 4.0), method_of_ci="Student t", n_eff=51.0,
        estimand=Estimand(0.8), details=details,
    )  # fmt: skip
    found = judge_corrected_values(point, evidence, why_not_values=why_not_values)
    assert found.valid == is_valid
    assert set(found.flags) == flags
    assert found.details["pareto_k"] == evidence.pareto_k


def near_log(seed: int, estimand: Estimand, **settings) -> EstimatorContext:
    """Endless episodes of a table, cut after six steps, and a policy that is near who acted."""
    mdp = random_mdp(seed, end=0.0)
    behaviour = random_policy(1, mdp)
    log = simulate(mdp, behaviour, 300, 6, np.random.default_rng(0))
    evaluated = 0.7 * behaviour + 0.3 * random_policy(2, mdp)
    policy = TablePolicy(torch.tensor(evaluated, dtype=torch.float32))
    dataset = dataset_of(episodes_of(log, mdp, behaviour), mdp)
    return context_of(policy, dataset, estimand, FQE, **settings)


def flat_values(*args, **kwargs) -> FQEResult:
    """A fit that has hardly begun: every state is worth nearly the mean reward of its steps."""
    found = fit_fqe(*args, **kwargs)
    with torch.no_grad():
        found.values.net.flat.mul_(1e-2)
    return found


def test_tails_of_a_value_that_does_not_count_take_ratios_with_them():
    found = ask(near_log(0, Estimand(0.95)), "pdwis")
    assert found.n_eff > 200
    assert found.details["tail_share"] > 0.5
    assert not found.valid
    assert INVALID_VALUES in found.flags


def test_magic_that_rests_on_a_value_that_did_not_settle_does_not_count():
    """The weights would do, and do for WDR; but the blend is DM, whose values hardly differ yet."""
    context = near_log(1, Estimand(1.0, horizon=6), fit_values=flat_values)
    found, dm = ask(context, "magic"), ask(context, "dm")
    assert ask(context, "wdr").valid
    assert not dm.valid
    assert found.details["value_share"] > 0.99
    assert found.point == pytest.approx(dm.point, rel=1e-3)
    assert not found.valid
    assert INVALID_VALUES in found.flags


@pytest.mark.parametrize("name", RATIO)
def test_probabilities_that_are_none_are_refused(name: str):
    """Half of each probability halves every ratio, and estimates fall with them."""
    _, dataset, policy, _ = table_log(n=30)
    half = TablePolicy(policy.table / 2)
    with pytest.raises(DataError, match=r"sum to 0\.5 and are no probabilities.*softmax"):
        ask(context_of(half, dataset, Estimand(0.8, horizon=4), FQE), name)
