"""One planner of each kind, and the task that most tests plan in."""

import torch
from torch import Tensor

from mbrl.planning.base import Budget, Hints, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.shooting.cem import CEM, CEMConfig
from mbrl.planning.shooting.icem import ICEM, ICEMConfig
from mbrl.planning.shooting.mppi import MPPI, MPPIConfig
from mbrl.planning.shooting.shooting import ShootingPlanner
from tests.planning.worlds import steady


def plan(planner: ShootingPlanner, obs: Tensor, *, hints: Hints | None = None, seed: int = 0) -> PlanResult:
    noise = RowNoise.draw(len(obs), torch.Generator().manual_seed(seed))
    return planner.plan(obs, budget=Budget(sims=sum(planner.sizes())), noise=noise, hints=hints)


def one_of_each(problem: PlanningProblem, **settings: object) -> list[ShootingPlanner]:
    """One planner of each kind, with settings that all have."""
    return [
        MPPI(problem, MPPIConfig.model_validate(settings)),
        ICEM(problem, ICEMConfig.model_validate(settings)),
        CEM(problem, CEMConfig.model_validate({"particles": None, "outcome": "mean"} | settings)),
    ]


def bowl(obs: Tensor, action: Tensor, member: Tensor) -> tuple[Tensor, ...]:
    next_obs = 0.9 * obs + 0.3 * action
    reward = -(next_obs[:, 0] - 0.5).square() - 0.1 * action[:, 0].square()
    return next_obs, reward, *steady(reward)
