"""A line to plan on, with a top to climb, and what results of planning on it are held to."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from mbrl.planning.base import Budget, Hints, Planner, PlannerConfig, PlannerEntry, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Pessimism, PlanningProblem
from mbrl.testing.checks import expect, expect_all, expect_close
from mbrl.testing.worlds import FixedPrior, Formula, FormulaLeaf, LinearPrior, World

Line: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""`(position [r], move [r], member [r]) -> position, reward, uncertainty`; beyond 1.5 the task has ended."""

_LEVELS = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
BUDGET = Budget(sims=24)
ROWS = 5
_OPTIONAL = {"stats", "tree", "elites", "delta_lcb"}
TENSORS = tuple(field.name for field in dataclasses.fields(PlanResult) if field.name not in _OPTIONAL)


@dataclasses.dataclass(frozen=True, slots=True)
class PlannerCase:
    """A planner, and the kind of actions that it is to plan.

    Attributes:
        entry: as it is registered.
        config: its settings.
        is_discrete: one-hot actions, or actions in a box.
    """

    entry: PlannerEntry
    config: PlannerConfig
    is_discrete: bool

    def make_problem(self, line: Line | None = None, **changes: Any) -> PlanningProblem:
        """Three members, two critics, some of every kind of pessimism."""
        prior = FixedPrior((0.1, 0.5, 0.0)) if self.is_discrete else LinearPrior(torch.zeros(1, 1), std=0.4)
        problem = PlanningProblem(
            World(make_formula(line or hill, is_discrete=self.is_discrete), members=3),
            prior,
            FormulaLeaf([lambda obs: -(obs[:, 0] - 0.7).abs(), lambda obs: -2.0 * (obs[:, 0] - 0.7).abs()]),
            obs_dim=1,
            discount=0.9,
            pessimism=Pessimism(penalty_coef=0.3, lcb_coef=0.5, critic_lcb_coef=0.5),
            dtype=torch.float64,
        )
        return dataclasses.replace(problem, **changes)

    def make(self, problem: PlanningProblem, clock: Callable[[], float] | None = None) -> Planner:
        """The planner."""
        return self.entry.build(problem, self.config, clock)

    def plan(self, line: Line | None = None, **changes: Any) -> PlanResult:
        """Plans of five states in a problem with changes."""
        return plan(self.make(self.make_problem(line, **changes)))

    def move(self, action: Tensor) -> Tensor:
        """`[b]`, how far actions move."""
        return action @ _LEVELS if self.is_discrete else action[:, 0]


def hill(position: Tensor, move: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The top lies at 0.7, and members disagree a little about where moves lead."""
    position = position + 0.3 * move + 0.02 * (member - 1)
    return position, -(position - 0.7).square(), 0.1 * move.abs()


def make_formula(line: Line, *, is_discrete: bool) -> Formula:
    """One step on `line` by an action in a box, or by a one-hot one."""

    def formula(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        move = action @ _LEVELS.to(action) if is_discrete else action[:, 0]
        position, reward, uncertainty = line(obs[:, 0], move, member)
        return position[:, None], reward, position > 1.5, uncertainty

    return formula


def make_states() -> Tensor:
    """`[5, 1]` places on the line."""
    return torch.linspace(-0.5, 0.9, ROWS, dtype=torch.float64)[:, None]


def plan(
    planner: Planner,
    obs: Tensor | None = None,
    *,
    seeds: Tensor | None = None,
    hints: Hints | None = None,
    budget: Budget = BUDGET,
) -> PlanResult:
    """Plans, with a seed of its own for each row."""
    obs = make_states() if obs is None else obs
    seeds = torch.arange(len(obs)) if seeds is None else seeds
    return planner.plan(obs, budget=budget, noise=RowNoise(seeds), hints=hints)


def expect_distribution(result: PlanResult) -> None:
    """Raises unless the improved policy is a distribution.

    Raises:
        CheckError: it is none.
    """
    expect_all(result.weights >= 0, "weights of 0 at least")
    error = float((result.weights.sum(1) - 1).abs().max())
    expect(error <= 1e-6, "weights that sum to 1", came=f"a sum that misses it by {error:g}")


def expect_fallback(result: PlanResult, problem: PlanningProblem) -> None:
    """Raises unless the policy acts in every state, and the result says so.

    Raises:
        CheckError: it does not.
    """
    expect_all(result.stats.is_fallback, "is_fallback")
    is_policy = torch.equal(result.action, problem.prior.act(make_states()))
    expect(is_policy, "the policy's own action", came="another")


def expect_bits(first: PlanResult, second: PlanResult, fields: Sequence[str], expected: str) -> None:
    """Raises unless two results are equal to the last bit.

    Raises:
        CheckError: they are not; the message names the fields.
    """
    differing = [field for field in fields if not torch.equal(getattr(first, field), getattr(second, field))]
    expect(not differing, expected, came=f"others: {', '.join(differing)}")


def expect_rows_equal(one: PlanResult, other: PlanResult, rows: Tensor) -> None:
    """Raises unless row i of the first is row `rows[i]` of the second, up to rounding of sums.

    Raises:
        CheckError: it is not.
    """
    for field in TENSORS:
        if field != "plan":
            what = f"{field} of a row the same wherever the row stands"
            expect_close(getattr(one, field), getattr(other, field)[rows], what, rtol=1e-9)
    for row in range(len(one.plan)):
        length = int(one.plan_length[row])
        first, second = one.plan[row, :length], other.plan[rows[row], :length]
        expect_close(first, second, "the plan of a row the same wherever the row stands", rtol=1e-9)
