"""What every planner must keep to, whatever it searches with.

The world is a line. A continuous action moves along it, discrete ones are steps of -1, 0 and 1.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from mbrl.core.device import CPU, on_device
from mbrl.planning.base import PLANNERS, SOURCES, Budget, Hints, PlannerEntry
from mbrl.planning.problem.problem import Pessimism
from mbrl.testing.card import StandIn
from mbrl.testing.checks import (
    Checks,
    Subject,
    expect,
    expect_all,
    expect_close,
    expect_refusal,
    expect_same,
    run_checks,
)
from mbrl.testing.line import (
    ROWS,
    TENSORS,
    PlannerCase,
    expect_bits,
    expect_distribution,
    expect_fallback,
    expect_rows_equal,
    hill,
    make_formula,
    make_states,
    plan,
)
from mbrl.testing.worlds import FixedPrior, FormulaLeaf, LinearPrior, World

_WAITS: Final = 12
"""For a card in one simulation of a tree search, which branches on what it finds."""


def check_planner(
    planner: str | PlannerEntry,
    config: Mapping[str, Any] | None = None,
    *,
    checks: Sequence[str] | None = None,
) -> None:
    """Checks a planner: results that add up, rows on their own, seeds, ends, pessimism, units, refusals.

    Args:
        planner: name in the registry, or the entry itself; it is checked with the kinds of actions that it
            says it plans.
        config: settings that differ from the defaults.
        checks: names from `PLANNER_CHECKS`; None for all.

    Raises:
        CheckError: a check failed; the message says what was expected and what came.
        ConfigError: there is no planner, or no check, of that name.
    """
    entry = PLANNERS.get(planner) if isinstance(planner, str) else planner
    name = planner if isinstance(planner, str) else entry.config.__name__
    kinds = [kind for kind, has in ((False, entry.is_continuous), (True, entry.is_discrete)) if has]
    expect(bool(kinds), "is_discrete or is_continuous", came="neither")
    for is_discrete in kinds:
        case = PlannerCase(entry, entry.config.model_validate(config or {}), is_discrete)
        subject = Subject("planner", f"{name} ({'discrete' if is_discrete else 'continuous'} actions)")
        run_checks(PLANNER_CHECKS, case, subject, checks)


def config_is_strict(case: PlannerCase) -> None:
    """Settings of other names are refused."""
    expect_refusal(lambda: type(case.config).model_validate({"no_such_setting": 1}), "no_such_setting")


def model_sees_actions_of_the_task_only(case: PlannerCase) -> None:
    """Actions in [-1, 1], or one-hot vectors, however far the prior's draws reach."""
    prior = FixedPrior((0.1, 0.5, 0.0)) if case.is_discrete else LinearPrior(torch.zeros(1, 1), 0.9, std=2.0)
    world = World(make_formula(hill, is_discrete=case.is_discrete), members=3)
    plan(case.make(case.make_problem(step=world, prior=prior)))
    seen = torch.cat(world.actions) if world.actions else torch.empty(0, 1)
    expect(len(seen) > 0, "steps in the model", came="none")
    if case.is_discrete:
        is_one_hot = ((seen == 0) | (seen == 1)).all() & (seen.sum(-1) == 1).all()
        expect(bool(is_one_hot), "one-hot actions", came="others")
    else:
        largest = float(seen.abs().max())
        expect(largest <= 1.0, "actions in [-1, 1]", came=largest)


def results_add_up(case: PlannerCase) -> None:
    """Parts make the value, weights a distribution; the plan begins with the action; the budget is kept."""
    result = case.plan()
    parts = result.reward_part - result.penalty_part + result.bootstrap_part
    expect_close(result.value, parts, "value = reward_part - penalty_part + bootstrap_part", rtol=1e-5)
    expect_all(result.value_lcb <= result.value + 1e-9, "value_lcb at most the value")
    expect_all(result.penalty_part >= 0, "penalty_part of 0 at least")
    expect_distribution(result)
    is_source = (result.provenance >= 0) & (result.provenance < len(SOURCES))
    expect_all(is_source, f"provenance that counts in SOURCES, 0 to {len(SOURCES) - 1}")
    expect_all(result.visits >= 0, "visits of 0 at least")
    expect(
        torch.equal(result.plan[:, 0], result.action), "a plan that begins with the action", came="another"
    )
    has_length = (result.plan_length >= 1) & (result.plan_length <= result.plan.shape[1])
    expect_all(has_length, f"a plan_length of 1 to {result.plan.shape[1]}")
    expect(not bool(result.stats.is_fallback.any()), "no fallback where all is finite", came="one")
    expect(0 < result.stats.sims <= 24, "1 to 24 sims, as the budget says", came=result.stats.sims)
    expect(result.stats.bad_rows == 0, "no bad rows where all is finite", came=result.stats.bad_rows)


def rows_do_not_influence_each_other(case: PlannerCase) -> None:
    """A state's plan depends on its state and its seed, not on its place or its company."""
    planner = case.make(case.make_problem())
    together = plan(planner)
    order = torch.tensor([3, 0, 4, 1, 2])
    expect_rows_equal(plan(planner, make_states()[order], seeds=order), together, order)
    for row in range(ROWS):
        one = torch.tensor([row])
        expect_rows_equal(plan(planner, make_states()[one], seeds=one), together, one)


def seeds_decide(case: PlannerCase) -> None:
    """The same seeds make the same plans, to the last bit."""
    first, second = case.plan(), case.plan()
    expect_bits(first, second, TENSORS, "the same plans with the same seeds")


def inputs_stay_and_results_are_ordinary_tensors(case: PlannerCase) -> None:
    """States and hints are as before; results may be written to and used in a loss."""
    obs = make_states()
    warm = torch.nn.functional.one_hot(torch.ones(ROWS, 2, dtype=torch.int64), 3).double()
    hints = Hints(warm=warm if case.is_discrete else torch.full((ROWS, 2, 1), 0.4, dtype=torch.float64))
    before = copy.deepcopy((obs, hints.warm))
    result = plan(case.make(case.make_problem()), obs, hints=hints)
    for field in TENSORS:
        value: Tensor = getattr(result, field)
        is_ordinary = not value.is_inference() and not value.requires_grad
        expect(
            is_ordinary, f"{field} as an ordinary tensor", came="one of inference_mode, or with a gradient"
        )
    result.plan.zero_()
    expect_same((obs, hints.warm), before, "states and hints as they were before planning")


def planning_beats_a_poor_policy(case: PlannerCase) -> None:
    """In a true model the plan moves uphill, where the policy stays."""
    obs = torch.full((16, 1), -0.5, dtype=torch.float64)
    planner = case.make(case.make_problem(pessimism=Pessimism()))
    move = float(case.move(plan(planner, obs, budget=Budget(sims=64)).action).mean())
    expect(move > 0.05, "a mean move of more than 0.05 uphill", came=move)


def nothing_is_bootstrapped_past_the_end(case: PlannerCase) -> None:
    """Beyond 1.5 the task has ended, and a critic that promises a million there is not believed."""

    def flat(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del member
        return position + move, torch.zeros_like(move), torch.zeros_like(move)

    leaf = FormulaLeaf([lambda obs: torch.where(obs[:, 0] > 1.5, 1e6, 1.0).to(obs.dtype)])
    result = plan(case.make(case.make_problem(flat, leaf=leaf)), make_states() + 0.5)
    for name, value in (("value", result.value), ("bootstrap_part", result.bootstrap_part)):
        expect(float(value.max()) <= 1.0, f"a {name} of 1 at most: the task ends", came=float(value.max()))


def uncertainty_without_a_price_changes_no_bit(case: PlannerCase) -> None:
    """With every coefficient at 0 an uncertain model is planned in as a sure one."""

    def unsure(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *hill(position, move, member)[:2], torch.full_like(move, 1e3)

    def sure(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *hill(position, move, member)[:2], torch.zeros_like(move)

    first, second = (case.plan(line, pessimism=Pessimism()) for line in (unsure, sure))
    fields = [field for field in TENSORS if field != "uncertainty"]
    expect_bits(first, second, fields, "the same plans whatever the uncertainty, since it costs nothing")


def reward_units_do_not_matter(case: PlannerCase) -> None:
    """Rewards in thousandths or thousands make the same plans, and values in that unit."""
    plain = case.plan(leaf=FormulaLeaf([lambda obs: -1.5 * (obs[:, 0] - 0.7).abs()]))
    for factor in (1e-3, 1e3):

        def scaled(
            position: Tensor, move: Tensor, member: Tensor, factor: float = factor
        ) -> tuple[Tensor, Tensor, Tensor]:
            position, reward, uncertainty = hill(position, move, member)
            return position, factor * reward, factor * uncertainty

        leaf = FormulaLeaf([lambda obs, factor=factor: factor * -1.5 * (obs[:, 0] - 0.7).abs()])
        other = case.plan(scaled, leaf=leaf, value_scale=factor)
        where = f"with rewards times {factor:g}"
        expect_close(plain.action, other.action, f"the same actions {where}", rtol=1e-6, atol=1e-6)
        expect_close(factor * plain.value, other.value, f"values times as much {where}", rtol=1e-6, atol=0.0)


def what_is_not_finite_is_never_chosen(case: PlannerCase) -> None:
    """To the right there is nothing but NaN, though everything to the left is dear."""

    def cliff(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del member
        reward = torch.where(move > 0.05, math.nan, -100.0 - move.square())
        return position + 0.1 * move, reward, torch.zeros_like(move)

    result = plan(case.make(case.make_problem(cliff)), budget=Budget(sims=64))
    expect_all(case.move(result.action) <= 0.05, "actions whose reward is finite")
    expect_all(result.value.isfinite(), "finite values")
    expect(result.stats.bad_rows > 0, "bad rows that are counted", came=0)


def without_anything_finite_the_policy_acts(case: PlannerCase) -> None:
    """And the result says so."""

    def broken(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        del member
        return position, torch.full_like(move, math.nan), torch.zeros_like(move)

    problem = case.make_problem(broken)
    result = plan(case.make(problem))
    expect_fallback(result, problem)
    expect(result.stats.bad_rows > 0, "bad rows that are counted", came=0)


def nonsense_is_refused(case: PlannerCase) -> None:
    """States that are not finite or have another size, and a budget of time without a clock."""
    planner = case.make(case.make_problem())
    bad = make_states()
    bad[2] = math.nan
    expect_refusal(lambda: plan(planner, bad), "row 2")
    expect_refusal(lambda: plan(planner, torch.zeros(ROWS, 2, dtype=torch.float64)), "observations")
    expect_refusal(lambda: plan(planner, budget=Budget(milliseconds=5.0)), "clock")


def hints_that_fit_no_plan_are_refused(case: PlannerCase) -> None:
    """By name and row; a warm plan that does not count may hold anything."""
    problem = case.make_problem()
    planner = case.make(problem)
    given = torch.zeros(ROWS, 2, problem.prior.act_dim, dtype=torch.float64)
    bad = given.clone()
    bad[1] = math.nan
    for hints, message in (
        (Hints(candidates=bad), "candidates in row 1"),
        (Hints(warm=bad), "warm in row 1"),
        (Hints(warm=given, elites=bad[:, None]), "elites in row 1"),
        (Hints(elites=given[:, None]), "elites come with"),
        (Hints(warm=given[1:]), "warm are"),
        (Hints(candidates=given[:, :0]), "k > 0"),
    ):
        expect_refusal(lambda hints=hints: plan(planner, hints=hints), message)
    expect_refusal(lambda: plan(planner, seeds=torch.arange(ROWS - 1)), "streams")
    has_warm = torch.arange(ROWS) != 1
    action = plan(planner, hints=Hints(warm=bad, has_warm=has_warm)).action
    expect_all(action.isfinite(), "finite actions where a warm plan that does not count is NaN")


def without_time_the_policy_acts(case: PlannerCase) -> None:
    """A clock that moves by a second whenever someone looks leaves none, and the result says so."""
    seconds = iter(range(100_000))
    problem = case.make_problem()
    planner = case.make(problem, lambda: float(next(seconds)))
    result = plan(planner, budget=Budget(milliseconds=5.0))
    expect_fallback(result, problem)
    expect(result.stats.is_deadline_hit, "is_deadline_hit", came="False")


def plans_on_a_card(case: PlannerCase) -> None:
    """The same plans to the last bit; the host waits for a card a few times a simulation at most."""
    sims = 8
    budget = Budget(sims)
    expected = plan(case.make(case.make_problem()), budget=budget)
    with StandIn() as card:
        planner = case.make(on_device(case.make_problem(), card.device))
        obs, before = make_states().to(card.device), len(card.waits)
        seeds = torch.arange(ROWS, device=card.device)
        found, waits = plan(planner, obs, seeds=seeds, budget=budget), len(card.waits) - before
        found = on_device(found, CPU)
    expect_bits(found, expected, TENSORS, "the plans of a CPU from a card")
    most = _WAITS * (1 + sims)
    expect(waits <= most, f"{most} waits for a card at most", came=waits)


def discounts_may_be_zero_or_one(case: PlannerCase) -> None:
    """Values stay finite; at 0 nothing is bootstrapped."""
    for discount in (0.0, 1.0):
        result = case.plan(discount=discount)
        expect_all(result.value.isfinite(), f"finite values at discount {discount:g}")
        if discount == 0.0:
            largest = float(result.bootstrap_part.abs().max())
            expect(largest == 0.0, "a bootstrap_part of 0 at discount 0", came=largest)


def one_simulation_is_enough(case: PlannerCase) -> None:
    """The least budget gives an answer, and is kept."""
    result = plan(case.make(case.make_problem()), budget=Budget(sims=1))
    expect(result.stats.sims <= 1, "1 sim at most, as the budget says", came=result.stats.sims)
    expect_all(result.action.isfinite(), "finite actions")
    expect_distribution(result)


def masked_actions_are_never_chosen(case: PlannerCase) -> None:
    """Discrete actions that a mask forbids get no weight; a mask without an action is refused."""
    if not case.is_discrete:
        return
    planner = case.make(case.make_problem())
    mask = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    result = plan(planner, make_states()[:3], hints=Hints(mask=mask))
    expect_all((result.action.bool() & mask).any(-1), "actions that the mask allows")
    allowed = (result.candidates.bool() & mask[:, None]).any(-1)
    weight = float((result.weights * ~allowed).sum())
    expect(weight == 0.0, "no weight on masked actions", came=weight)
    empty = Hints(mask=torch.tensor([[True] * 3, [False] * 3]))
    expect_refusal(lambda: plan(planner, make_states()[:2], hints=empty), "row 1")


PLANNER_CHECKS: Final[Checks[PlannerCase]] = {
    check.__name__: check
    for check in (
        config_is_strict,
        model_sees_actions_of_the_task_only,
        results_add_up,
        rows_do_not_influence_each_other,
        seeds_decide,
        inputs_stay_and_results_are_ordinary_tensors,
        planning_beats_a_poor_policy,
        nothing_is_bootstrapped_past_the_end,
        uncertainty_without_a_price_changes_no_bit,
        reward_units_do_not_matter,
        what_is_not_finite_is_never_chosen,
        without_anything_finite_the_policy_acts,
        nonsense_is_refused,
        hints_that_fit_no_plan_are_refused,
        without_time_the_policy_acts,
        plans_on_a_card,
        discounts_may_be_zero_or_one,
        one_simulation_is_enough,
        masked_actions_are_never_chosen,
    )
}
"""Checks of `check_planner` by name."""
