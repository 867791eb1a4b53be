"""A planner that looks one step ahead: small enough to check by hand, whole enough to run a stage with."""

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import torch
from pydantic import Field

from mbrl.planning.base import (
    PLANNERS,
    SOURCES,
    Budget,
    Hints,
    PlannerConfig,
    PlannerEntry,
    PlanResult,
    PlanStats,
    check_observations,
)
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem, pessimistic_edge


class OneStepConfig(PlannerConfig):
    """Looks one step ahead.

    Attributes:
        spread: factor on the deviation of the policy's draws.
    """

    spread: Annotated[float, Field(gt=0, le=100)] = 1.0


class OneStep:
    """The best of mode, injected actions and draws by `mean_e - kappa std_e` of `r - lam u + g V`."""

    def __init__(self, problem: PlanningProblem, config: OneStepConfig, clock: Clock | None) -> None:
        self.problem, self.config, self.clock = problem, config, clock

    @torch.no_grad()
    def plan(
        self, obs: torch.Tensor, *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        check_observations(obs, self.problem)
        begin = 0.0 if self.clock is None else self.clock()
        candidates, sources = self._candidates(obs, budget, noise, hints)
        rows, count, width = candidates.shape
        out = self.problem.step(obs.repeat_interleave(count, 0), candidates.reshape(-1, width))
        leaf = self.problem.leaf_value(out.next_observation.flatten(0, 1)).view_as(out.reward)
        edge = pessimistic_edge(out, leaf, discount=self.problem.discount, pessimism=self.problem.pessimism)
        bootstrap = edge.mixed + edge.discount * leaf
        value = edge.reward - edge.penalty + bootstrap
        mean, std = value.mean(0), value.std(0, correction=0)
        bound = (mean - self.problem.pessimism.lcb_coef * std).view(rows, count)
        best = bound.argmax(1)
        at = torch.arange(rows) * count + best

        def pick(x: torch.Tensor) -> torch.Tensor:
            return x.mean(0)[at] if x.dim() == 2 else x[at]

        action = candidates[torch.arange(rows), best]
        elapsed = float("nan") if self.clock is None else 1000.0 * (self.clock() - begin)
        calls = len(out.reward) * rows * count
        return PlanResult(
            action=action,
            plan=action[:, None],
            plan_length=torch.ones(rows, dtype=torch.int64),
            candidates=candidates,
            weights=torch.nn.functional.one_hot(best, count).float(),
            visits=torch.ones(rows, count, dtype=torch.int64),
            provenance=sources,
            value=pick(mean),
            value_lcb=bound.flatten()[at],
            reward_part=pick(edge.reward),
            penalty_part=pick(edge.penalty),
            bootstrap_part=pick(bootstrap),
            uncertainty=out.uncertainty[at],
            delta_lcb=bound.amax(1) - bound[:, 0],
            limited=torch.zeros(rows, 3),
            policy_limited=torch.zeros(rows, 3),
            stats=PlanStats(count, 1, calls, 1, elapsed, False, torch.zeros(rows, dtype=torch.bool), 0, 1, 0),
        )

    def _candidates(
        self, obs: torch.Tensor, budget: Budget, noise: RowNoise, hints: Hints | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        prior, draws = self.problem.prior, (budget.sims or 4) - 1
        parts, names = [prior.act(obs)[:, None]], ["policy"]
        if hints is not None and hints.candidates is not None:
            parts.append(hints.candidates)
            names += ["dataset"] * hints.candidates.shape[1]
        if draws > 0:
            eps = noise.normal("one_step", (draws, prior.act_dim)).transpose(0, 1)
            parts.append(prior.sample(obs, eps, spread=self.config.spread).transpose(0, 1))
            names += ["policy"] * draws
        sources = torch.tensor([SOURCES.index(name) for name in names]).expand(len(obs), -1)
        return torch.cat(parts, 1), sources


@contextlib.contextmanager
def registered() -> Iterator[None]:
    """`one_step` is a planner for as long as this is open."""
    table: Any = PLANNERS
    PLANNERS.names()  # everything else is there first
    table.register("one_step", "Looks one step ahead.")(
        PlannerEntry(OneStepConfig, OneStep, is_discrete=False, is_continuous=True)
    )
    try:
        yield
    finally:
        del table._table["one_step"]
