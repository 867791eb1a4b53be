"""Laws that every registered planner must obey, whatever it searches with.

The world is a line. A continuous action moves along it, discrete ones are steps of -1, 0 and 1.
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
import torch
from torch import Tensor

from mbrl.planning.base import PLANNERS, SOURCES, Budget, Hints, Planner, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from tests.planning.worlds import Formula, FormulaLeaf, LinearPrior, World

LEVELS = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
BUDGET = Budget(sims=24)
ROWS = 5
TENSORS = tuple(
    field.name
    for field in dataclasses.fields(PlanResult)
    if field.name not in {"stats", "tree", "elites", "delta_lcb"}
)

Line = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""`(position [r], move [r], member [r]) -> position, reward, uncertainty`; beyond 1.5 the task has ended."""


@dataclasses.dataclass
class DiscretePrior:
    """Prefers the middle action, and the left one over the right one."""

    act_dim: int = 3
    is_discrete: bool = True

    def logits(self, obs: Tensor) -> Tensor:
        return torch.tensor([0.1, 0.5, 0.0], dtype=obs.dtype).expand(len(obs), 3)

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        logits = self.logits(obs)
        best = (logits if noise is None else logits + noise).argmax(-1)
        return torch.nn.functional.one_hot(best, 3).to(obs.dtype)

    def sample(self, obs: Tensor, noise: Tensor, *, spread: float = 1.0) -> Tensor:
        raise AssertionError("discrete actions")


def hill(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The top lies at 0.7, and members disagree a little about where moves lead."""
    position = position + 0.3 * move + 0.02 * (member - 1)
    return position, -(position - 0.7).square(), 0.1 * move.abs()


CASES = [
    (name, is_discrete)
    for name in PLANNERS.names()
    for is_discrete in (False, True)
    if (PLANNERS.get(name).is_discrete if is_discrete else PLANNERS.get(name).is_continuous)
]
every_planner = pytest.mark.parametrize(
    ("name", "is_discrete"), CASES, ids=[f"{name}-{'discrete' if d else 'box'}" for name, d in CASES]
)
discrete_planners = pytest.mark.parametrize("name", [name for name, is_discrete in CASES if is_discrete])


def make_formula(line: Line, *, is_discrete: bool) -> Formula:
    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
        move = action @ LEVELS.to(action.dtype) if is_discrete else action[:, 0]
        position, reward, uncertainty = line(obs[:, 0], move, member)
        return position[:, None], reward, position > 1.5, uncertainty

    return formula


def make_problem(is_discrete: bool, line: Line = hill, **changes: Any) -> PlanningProblem:
    prior = DiscretePrior() if is_discrete else LinearPrior(torch.zeros(1, 1), std=0.4)
    problem = PlanningProblem(
        World(make_formula(line, is_discrete=is_discrete), members=3),
        prior,
        FormulaLeaf([lambda obs: -(obs[:, 0] - 0.7).abs(), lambda obs: -2.0 * (obs[:, 0] - 0.7).abs()]),
        obs_dim=1,
        discount=0.9,
        pessimism=Pessimism(penalty_coef=0.3, lcb_coef=0.5, critic_lcb_coef=0.5),
        dtype=torch.float64,
    )
    return dataclasses.replace(problem, **changes)


def make_planner(name: str, problem: PlanningProblem, clock: Callable[[], float] | None = None) -> Planner:
    entry = PLANNERS.get(name)
    return entry.build(problem, entry.config(), clock)


def states() -> Tensor:
    return torch.linspace(-0.5, 0.9, ROWS, dtype=torch.float64)[:, None]


def plan(
    planner: Planner,
    obs: Tensor | None = None,
    *,
    seeds: Tensor | None = None,
    hints: Hints | None = None,
    budget: Budget = BUDGET,
) -> PlanResult:
    obs = states() if obs is None else obs
    seeds = torch.arange(len(obs)) if seeds is None else seeds
    return planner.plan(obs, budget=budget, noise=RowNoise(seeds), hints=hints)


def assert_rows_equal(one: PlanResult, other: PlanResult, rows: Tensor) -> None:
    """Row i of the first is row `rows[i]` of the second, up to rounding of sums."""
    for field in set(TENSORS) - {"plan"}:
        first, second = getattr(one, field), getattr(other, field)[rows]
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9, equal_nan=True, msg=field)
    for row, length in enumerate(one.plan_length.tolist()):
        first, second = one.plan[row, :length], other.plan[rows[row], :length]
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9, msg="plan")


def test_the_registry_names_the_planners() -> None:
    assert {"mppi", "icem", "cem"} <= set(PLANNERS.names())
    for name in PLANNERS.names():
        with pytest.raises(pydantic.ValidationError):
            PLANNERS.get(name).config.model_validate({"no_such_setting": 1})


@every_planner
def test_the_model_sees_actions_of_the_task_only(name: str, is_discrete: bool) -> None:
    prior = DiscretePrior() if is_discrete else LinearPrior(torch.zeros(1, 1), bias=0.9, std=2.0)
    problem = make_problem(is_discrete, prior=prior)
    plan(make_planner(name, problem))
    assert isinstance(problem.step, World)
    seen = torch.cat(problem.step.actions)
    assert len(seen) > 0
    if is_discrete:
        assert bool(((seen == 0) | (seen == 1)).all())
        assert bool((seen.sum(-1) == 1).all())
    else:
        assert float(seen.abs().max()) <= 1.0


@every_planner
def test_a_result_adds_up(name: str, is_discrete: bool) -> None:
    result = plan(make_planner(name, make_problem(is_discrete)))
    parts = result.reward_part - result.penalty_part + result.bootstrap_part
    torch.testing.assert_close(result.value, parts, rtol=1e-5, atol=1e-9)
    assert bool((result.value_lcb <= result.value + 1e-9).all())
    assert bool((result.penalty_part >= 0).all())
    torch.testing.assert_close(
        result.weights.sum(1), torch.ones(ROWS, dtype=torch.float64), rtol=0, atol=1e-6
    )
    assert bool((result.weights >= 0).all())
    assert bool(((result.provenance >= 0) & (result.provenance < len(SOURCES))).all())
    assert bool((result.visits >= 0).all())
    assert torch.equal(result.plan[:, 0], result.action)
    assert bool(((result.plan_length >= 1) & (result.plan_length <= result.plan.shape[1])).all())
    assert not bool(result.stats.is_fallback.any())
    assert 0 < result.stats.sims <= 24
    assert result.stats.bad_rows == 0


@every_planner
def test_rows_do_not_influence_each_other(name: str, is_discrete: bool) -> None:
    planner = make_planner(name, make_problem(is_discrete))
    together = plan(planner)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_rows_equal(plan(planner, states()[order], seeds=order), together, order)
    for row in range(ROWS):
        one = torch.tensor([row])
        assert_rows_equal(plan(planner, states()[one], seeds=one), together, one)


@every_planner
def test_the_same_seeds_make_the_same_plans(name: str, is_discrete: bool) -> None:
    first, second = (plan(make_planner(name, make_problem(is_discrete))) for _ in range(2))
    for field in TENSORS:
        assert torch.equal(getattr(first, field), getattr(second, field))


@every_planner
def test_inputs_stay_and_results_are_ordinary_tensors(name: str, is_discrete: bool) -> None:
    obs = states()
    warm = torch.nn.functional.one_hot(torch.ones(ROWS, 2, dtype=torch.int64), 3).double()
    hints = Hints(warm=warm if is_discrete else torch.full((ROWS, 2, 1), 0.4, dtype=torch.float64))
    before = copy.deepcopy((obs, hints.warm))
    result = plan(make_planner(name, make_problem(is_discrete)), obs, hints=hints)
    for field in TENSORS:
        value = getattr(result, field)
        assert not value.is_inference()
        assert not value.requires_grad
    result.plan.zero_()
    assert torch.equal(obs, before[0])
    assert torch.equal(hints.warm, before[1])


@every_planner
def test_planning_beats_a_poor_policy_in_a_true_model(name: str, is_discrete: bool) -> None:
    problem = make_problem(is_discrete, pessimism=Pessimism())
    obs = torch.full((16, 1), -0.5, dtype=torch.float64)
    result = plan(make_planner(name, problem), obs, budget=Budget(sims=64))
    move = result.action @ LEVELS if is_discrete else result.action[:, 0]
    assert float(move.mean()) > 0.05


@every_planner
def test_nothing_is_bootstrapped_past_the_end(name: str, is_discrete: bool) -> None:
    """Beyond 1.5 the task has ended, and a critic that promises a million there is not believed."""

    def flat(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return position + move, torch.zeros_like(move), torch.zeros_like(move)

    leaf = FormulaLeaf([lambda obs: torch.where(obs[:, 0] > 1.5, 1e6, 1.0).to(obs.dtype)])
    result = plan(make_planner(name, make_problem(is_discrete, flat, leaf=leaf)), states() + 0.5)
    assert float(result.value.max()) <= 1.0
    assert float(result.bootstrap_part.max()) <= 1.0


@every_planner
def test_uncertainty_that_costs_nothing_changes_no_bit(name: str, is_discrete: bool) -> None:
    def unsure(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *hill(position, move, member)[:2], torch.full_like(move, 1e3)

    def certain(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return *hill(position, move, member)[:2], torch.zeros_like(move)

    results = [
        plan(make_planner(name, make_problem(is_discrete, line, pessimism=Pessimism())))
        for line in (unsure, certain)
    ]
    for field in set(TENSORS) - {"uncertainty"}:
        assert torch.equal(getattr(results[0], field), getattr(results[1], field)), field


@every_planner
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_the_reward_does_not_matter(name: str, is_discrete: bool, factor: float) -> None:
    def scaled(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        position, reward, uncertainty = hill(position, move, member)
        return position, factor * reward, factor * uncertainty

    leaf = FormulaLeaf([lambda obs: factor * -1.5 * (obs[:, 0] - 0.7).abs()])
    other = make_problem(is_discrete, scaled, leaf=leaf, value_scale=factor)
    plain = make_problem(is_discrete, leaf=FormulaLeaf([lambda obs: -1.5 * (obs[:, 0] - 0.7).abs()]))
    one, two = plan(make_planner(name, plain)), plan(make_planner(name, other))
    torch.testing.assert_close(one.action, two.action, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(factor * one.value, two.value, rtol=1e-6, atol=0.0)


@every_planner
def test_what_is_not_finite_is_never_chosen(name: str, is_discrete: bool) -> None:
    """To the right there is nothing but NaN, though everything to the left is dear."""

    def cliff(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reward = torch.where(move > 0.05, math.nan, -100.0 - move.square())
        return position + 0.1 * move, reward, torch.zeros_like(move)

    result = plan(make_planner(name, make_problem(is_discrete, cliff)), budget=Budget(sims=64))
    move = result.action @ LEVELS if is_discrete else result.action[:, 0]
    assert bool((move <= 0.05).all())
    assert bool(result.value.isfinite().all())
    assert result.stats.bad_rows > 0


@every_planner
def test_without_anything_finite_the_policy_acts_and_says_so(name: str, is_discrete: bool) -> None:
    def broken(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        nan = torch.full_like(move, math.nan)
        return position, nan, torch.zeros_like(move)

    problem = make_problem(is_discrete, broken)
    result = plan(make_planner(name, problem))
    assert bool(result.stats.is_fallback.all())
    assert torch.equal(result.action, problem.prior.act(states()))
    assert result.stats.bad_rows > 0


@every_planner
def test_states_and_budgets_that_make_no_sense_are_refused(name: str, is_discrete: bool) -> None:
    planner = make_planner(name, make_problem(is_discrete))
    bad = states()
    bad[2] = math.nan
    with pytest.raises(ValueError, match="row 2"):
        plan(planner, bad)
    with pytest.raises(ValueError, match="observations"):
        plan(planner, torch.zeros(ROWS, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="clock"):
        plan(planner, budget=Budget(milliseconds=5.0))


@every_planner
def test_hints_that_fit_no_plan_are_refused(name: str, is_discrete: bool) -> None:
    problem = make_problem(is_discrete)
    planner = make_planner(name, problem)
    width = problem.prior.act_dim
    given = torch.zeros(ROWS, 2, width, dtype=torch.float64)
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
        with pytest.raises(ValueError, match=message):
            plan(planner, hints=hints)
    with pytest.raises(ValueError, match="streams"):
        plan(planner, seeds=torch.arange(ROWS - 1))
    has_warm = torch.arange(ROWS) != 1
    assert bool(plan(planner, hints=Hints(warm=bad, has_warm=has_warm)).action.isfinite().all())


@every_planner
def test_without_time_the_policy_acts_and_says_so(name: str, is_discrete: bool) -> None:
    """A clock that moves by a second whenever someone looks."""
    seconds = iter(range(1000))
    problem = make_problem(is_discrete)
    planner = make_planner(name, problem, lambda: float(next(seconds)))
    result = plan(planner, budget=Budget(milliseconds=5.0))
    assert bool(result.stats.is_fallback.all())
    assert result.stats.is_deadline_hit
    assert torch.equal(result.action, problem.prior.act(states()))


@every_planner
@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_edges_of_the_discount(name: str, is_discrete: bool, discount: float) -> None:
    result = plan(make_planner(name, make_problem(is_discrete, discount=discount)))
    assert bool(result.value.isfinite().all())
    if discount == 0.0:
        assert float(result.bootstrap_part.abs().max()) == 0.0


@every_planner
def test_one_simulation_is_enough_for_an_answer(name: str, is_discrete: bool) -> None:
    result = plan(make_planner(name, make_problem(is_discrete)), budget=Budget(sims=1))
    assert result.stats.sims <= 1
    assert bool(result.action.isfinite().all())
    torch.testing.assert_close(
        result.weights.sum(1), torch.ones(ROWS, dtype=torch.float64), rtol=0, atol=1e-6
    )


@discrete_planners
def test_masked_actions_are_never_chosen(name: str) -> None:
    planner = make_planner(name, make_problem(is_discrete=True))
    mask = torch.tensor([[True, True, False], [False, True, True], [True, False, False]])
    result = plan(planner, states()[:3], hints=Hints(mask=mask))
    assert bool((result.action.bool() & mask).any(-1).all())
    allowed = (result.candidates.bool() & mask[:, None]).any(-1)
    assert float((result.weights * ~allowed).sum()) == 0.0
    with pytest.raises(ValueError, match="row 1"):
        plan(planner, states()[:2], hints=Hints(mask=torch.tensor([[True] * 3, [False] * 3])))
