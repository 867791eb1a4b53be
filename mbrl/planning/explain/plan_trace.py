"""Any planner's plan, traced through the model: candidates, parts of its value, what each step is worth."""

import dataclasses
import math
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.planning.base import SOURCES, PlanResult
from mbrl.planning.problem.problem import PlanningProblem, pessimistic_edge

MOST_CANDIDATES: Final = 32
"""That are described, from the heaviest down: an optimiser compares hundreds, most of them with no weight."""

_FIGURES: Final = (
    "value", "value_lcb", "reward_part", "penalty_part", "bootstrap_part", "uncertainty", "delta_lcb",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class PlanStep:
    """One step of a plan in the mean of the members.

    Attributes:
        action: in [-1, 1] or one-hot.
        reward: raw, mean over members.
        penalty: for its uncertainty.
        discount: that what follows is worth.
        value: `r + discount V(s')`, mean over members, return units.
        spread: deviation over members of that.
        min_member: member with the least value; None where there is one member only.
        uncertainty: u, reward units.
        ended: share of members that end here.
    """

    action: tuple[float, ...]
    reward: float
    penalty: float
    discount: float
    value: float
    spread: float
    min_member: int | None
    uncertainty: float
    ended: float


@torch.no_grad()
def trace_plan(
    problem: PlanningProblem, obs: Float[Tensor, "1 obs_dim"], plan: Float[Tensor, "l act_dim"]
) -> list[PlanStep]:
    """Follows a plan through the mean of the members' means; stops where most members end.

    Args:
        problem: what was planned in.
        obs: where the plan begins.
        plan: actions in order.
    """
    steps: list[PlanStep] = []
    for action in plan:
        # All members step from the same state, and each is asked what it makes of it: r + mixed + g V(s').
        out = problem.step(obs, action[None].to(obs.dtype))
        value = problem.leaf_value(out.next_observation.flatten(0, 1)).view_as(out.reward)
        edge = pessimistic_edge(out, value, discount=problem.discount, pessimism=problem.pessimism)
        target = (edge.reward + edge.mixed + edge.discount * value)[:, 0].double()
        steps.append(
            PlanStep(
                action=tuple(map(float, action)),
                reward=float(edge.reward.mean()),
                penalty=float(edge.penalty.mean()),
                discount=float(edge.discount.mean()),
                value=float(target.mean()),
                spread=float(target.std(correction=0)),
                min_member=int(target.argmin()) if len(target) > 1 else None,
                uncertainty=float(out.uncertainty[0]),
                ended=float(edge.ended.double().mean()),
            )
        )
        if steps[-1].ended > 0.5:
            break
        # The plan goes on from the mean of where they lead.
        obs = out.next_observation.mean(0)
    return steps


def describe_plan(
    problem: PlanningProblem, obs: Float[Tensor, "b obs_dim"], result: PlanResult, *, row: int = 0
) -> dict[str, Any]:
    """A plan of one state as plain values: candidates from the heaviest down, parts, steps.

    Args:
        problem: what was planned in.
        obs: states of the call.
        result: of the call.
        row: which state.
    """
    order = torch.argsort(result.weights[row], descending=True, stable=True)[:MOST_CANDIDATES]
    steps = result.plan[row, : int(result.plan_length[row])]
    return {
        "observation": obs[row].tolist(),
        "action": result.action[row].tolist(),
        "plan": steps.tolist(),
        **{name: _finite(float(getattr(result, name)[row])) for name in _FIGURES},
        "candidates": [_candidate(result, row, int(order[rank])) for rank in range(len(order))],
        "plan_trace": [
            {key: _finite(value) for key, value in dataclasses.asdict(step).items()}
            for step in trace_plan(problem, obs[row : row + 1], steps)
        ],
    }


def _candidate(result: PlanResult, row: int, index: int) -> dict[str, Any]:
    return {
        "action": result.candidates[row, index].tolist(),
        "weight": float(result.weights[row, index]),
        "visits": int(result.visits[row, index]),
        "source": SOURCES[int(result.provenance[row, index])],
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
