"""Each check of a planner finds the defect that it is there for: a sound planner, damaged in one place."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from pydantic import ConfigDict

from mbrl.planning.base import PLANNERS, Budget, Hints, PlannerConfig, PlannerEntry, PlanResult
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.testing import PLANNER_CHECKS, CheckError, check_planner


class Damaged:
    """A planner around a sound one; subclasses change what goes in or what comes out."""

    inner_name = "mppi"

    def __init__(self, problem: PlanningProblem, clock: Any) -> None:
        entry = PLANNERS.get(self.inner_name)
        self.inner, self.problem = entry.build(problem, entry.config(), clock), problem

    def plan(self, obs: Any, *, budget: Budget, noise: Any, hints: Hints | None = None) -> PlanResult:
        return self.change(self.inner.plan(obs, budget=budget, noise=noise, hints=hints), obs)

    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return result


class Loose(Damaged):
    """Takes settings that it does not have."""


class FarSteps(Damaged):
    def plan(self, obs: Any, **rest: Any) -> PlanResult:
        self.problem.step(obs, 3 * torch.ones(len(obs), 1, dtype=obs.dtype))
        return super().plan(obs, **rest)


class Wrong(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, value=result.value + 1.0)


class Averaging(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, uncertainty=result.uncertainty + obs.mean())


class Counting(Damaged):
    calls = itertools.count()

    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, uncertainty=result.uncertainty + next(self.calls))


class InPlace(Damaged):
    def plan(self, obs: Any, **rest: Any) -> PlanResult:
        obs -= 1e-3
        return super().plan(obs, **rest)


class Lazy(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, action=self.problem.prior.act(obs))


class Hopeful(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, bootstrap_part=result.bootstrap_part + 1e6)


class Timid(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, value_lcb=result.value_lcb - result.uncertainty)


class Reckless(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, action=torch.ones_like(result.action))


class Silent(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        stats = dataclasses.replace(
            result.stats, is_fallback=torch.zeros(len(obs), dtype=torch.bool), is_deadline_hit=False
        )
        return dataclasses.replace(result, stats=stats)


class Forgiving(Damaged):
    def plan(self, obs: Any, **rest: Any) -> PlanResult:
        return super().plan(obs.nan_to_num(), **rest)


class Deaf(Damaged):
    def plan(self, obs: Any, *, hints: Any = None, **rest: Any) -> PlanResult:
        return super().plan(obs, **rest)


class DeafTree(Deaf):
    inner_name = "gumbel"


class Undiscounted(Damaged):
    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        return dataclasses.replace(result, value=result.value / (1 - self.problem.discount))


class Spending(Damaged):
    def plan(self, obs: Any, *, budget: Any, **rest: Any) -> PlanResult:
        return super().plan(obs, budget=Budget(sims=24), **rest)


class Asking(Damaged):
    """Reads numbers back, one by one."""

    def change(self, result: PlanResult, obs: Any) -> PlanResult:
        value = torch.stack([row + 0.0 * row.item() for _ in range(100) for row in result.value])
        return dataclasses.replace(result, value=value[: len(obs)])


class StrictConfig(PlannerConfig):
    """No settings."""


class LooseConfig(PlannerConfig):
    model_config = ConfigDict(frozen=True, extra="ignore")


def entry_of(kind: type[Damaged]) -> PlannerEntry:
    is_discrete = kind.inner_name == "gumbel"
    return PlannerEntry(
        config=LooseConfig if kind is Loose else StrictConfig,
        build=lambda problem, config, clock: kind(problem, clock),
        is_discrete=is_discrete,
        is_continuous=not is_discrete,
    )


MUTANTS: list[tuple[type[Damaged], str, str]] = [
    (Loose, "config_is_strict", "a ValueError that says 'no_such_setting'; came a result"),
    (FarSteps, "model_sees_actions_of_the_task_only", r"actions in \[-1, 1\]; came 3.0"),
    (Wrong, "results_add_up", "reward_part - penalty_part .* came a difference of 1"),
    (Averaging, "rows_do_not_influence_each_other", "uncertainty of a row the same wherever the row stands"),
    (Counting, "seeds_decide", "came others: uncertainty"),
    (InPlace, "inputs_stay_and_results_are_ordinary_tensors", r"came \[0\] differs in 5 of 5 entries"),
    (Lazy, "planning_beats_a_poor_policy", "a mean move of more than 0.05 uphill; came 0.0"),
    (Hopeful, "nothing_is_bootstrapped_past_the_end", "a bootstrap_part of 1 at most"),
    (Timid, "uncertainty_without_a_price_changes_no_bit", "came others: value_lcb"),
    (Wrong, "reward_units_do_not_matter", "values times as much with rewards times 0.001"),
    (
        Reckless,
        "what_is_not_finite_is_never_chosen",
        "actions whose reward is finite; came others in the rows",
    ),
    (Silent, "without_anything_finite_the_policy_acts", "expected is_fallback"),
    (Forgiving, "nonsense_is_refused", "a ValueError that says 'row 2'; came a result"),
    (Deaf, "hints_that_fit_no_plan_are_refused", "'candidates in row 1'; came a result"),
    (Silent, "without_time_the_policy_acts", "expected is_fallback"),
    (Undiscounted, "discounts_may_be_zero_or_one", "finite values at discount 1"),
    (Spending, "one_simulation_is_enough", "1 sim at most"),
    (Asking, "plans_on_a_card", "waits for a card at most; came"),
    (DeafTree, "masked_actions_are_never_chosen", "expected "),
]


@pytest.mark.parametrize(
    ("kind", "check", "message"), MUTANTS, ids=[f"{m[0].__name__}-{m[1]}" for m in MUTANTS]
)
def test_a_defect_is_found_and_named(kind: type[Damaged], check: str, message: str) -> None:
    with pytest.raises(CheckError, match=f"(?s)planner '.*', {check}: .*{message}"):
        check_planner(entry_of(kind), checks=[check])


def test_every_check_has_a_defect_that_it_finds() -> None:
    assert {check for _, check, _ in MUTANTS} == set(PLANNER_CHECKS)


def test_a_planner_of_no_actions_is_refused() -> None:
    entry = dataclasses.replace(PLANNERS.get("mppi"), is_continuous=False)
    with pytest.raises(CheckError, match="is_discrete or is_continuous; came neither"):
        check_planner(entry)
