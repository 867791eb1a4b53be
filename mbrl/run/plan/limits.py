"""Constraints and costs of a planner's config: over the names of the log, in the model and in the log."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mbrl.data.rules import read_step_rules
from mbrl.planning.base import PlanResult
from mbrl.planning.problem.limits import with_limits
from mbrl.planning.problem.problem import Limits, PlanningProblem
from mbrl.run.plan.basis import PlanBasis
from mbrl.run.plan.config import PlanConfig


def limit_plans(problem: PlanningProblem, basis: PlanBasis, config: PlanConfig) -> PlanningProblem:
    """The problem, or the same with limits where the config names a constraint or a cost.

    Raises:
        ExpressionError: one of them reads what the log does not have.
    """
    if config.constraint is None and config.cost is None:
        return problem
    constraint, cost = read_step_rules(basis.dataset, constraint=config.constraint, cost=config.cost)
    limits = Limits(config.max_violation, math.inf if config.cost_limit is None else config.cost_limit)
    return with_limits(
        problem, limits, box=basis.box, constraint=constraint, cost=cost, price=config.cost_price
    )


def logged_limits(basis: PlanBasis, config: PlanConfig) -> dict[str, Any] | None:
    """How often the log breaks the constraint, and what it cost; None without either.

    `steps_broken` and `episodes_broken` are shares, `cost_per_step` and `cost_per_episode` means; the latter
    are None without a cost.
    """
    if config.constraint is None and config.cost is None:
        return None
    constraint, cost = read_step_rules(basis.dataset, constraint=config.constraint, cost=config.cost)
    rows = basis.dataset.transitions()
    step = tuple(torch.tensor(part) for part in (rows.observation, rows.action, rows.next_observation))
    steps, episodes = len(rows), len(np.unique(rows.episode))
    found: dict[str, Any] = {
        "constraint": config.constraint,
        "max_violation": config.max_violation,
        "cost": config.cost,
        "cost_price": config.cost_price,
        "cost_limit": config.cost_limit,
        "steps_broken": None,
        "episodes_broken": None,
        "cost_per_step": None,
        "cost_per_episode": None,
    }
    if constraint is not None:
        broken = constraint(*step) == 0.0
        found["steps_broken"] = float(broken.double().mean())
        found["episodes_broken"] = len(np.unique(rows.episode[broken.numpy()])) / episodes
    if cost is not None:
        total = float(cost(*step).double().sum())
        found["cost_per_step"], found["cost_per_episode"] = total / steps, total / episodes
    return found


def plan_limits(result: PlanResult, limits: Limits | None) -> tuple[float, float, float, float]:
    """Sums over states: those imagined, shares that break the constraint, costs, plans beyond limits."""
    known = result.limited.isfinite().all(1)
    limited: Tensor = result.limited[known].double()
    beyond = 0.0 if limits is None else float((limits.excess(*limited.T) > 0.0).sum())
    return float(known.sum()), float(limited[:, 0].sum()), float(limited[:, 1].sum()), beyond
