"""The policy's own action as a plan, where there is no time to think."""

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.planning.base import SOURCES, PlanResult, PlanStats
from mbrl.planning.problem.problem import PlanningProblem


def act_by_policy(
    problem: PlanningProblem, obs: Float[Tensor, "b obs_dim"], *, milliseconds: float
) -> PlanResult:
    """The prior's mode, worth what the pessimistic critic says of the state; no step is imagined.

    `uncertainty` is 0, since no step was asked about, and `delta_lcb` and what is limited are NaN, since
    nothing was compared or imagined.

    Args:
        problem: whose prior acts.
        obs: states.
        milliseconds: that went by.
    """
    action = problem.prior.act(obs).clamp(-1.0, 1.0)
    value = problem.leaf_value(obs)
    zero, one = torch.zeros_like(value), torch.ones_like(value, dtype=torch.long)
    return PlanResult(
        action=action,
        plan=action[:, None],
        plan_length=one,
        candidates=action[:, None],
        weights=torch.ones_like(value)[:, None],
        visits=torch.zeros_like(one)[:, None],
        provenance=torch.full_like(one, SOURCES.index("policy"))[:, None],
        value=value,
        value_lcb=value,
        reward_part=zero,
        penalty_part=zero,
        bootstrap_part=value,
        uncertainty=zero,
        delta_lcb=torch.full_like(value, torch.nan),
        limited=value.new_full((len(value), 3), torch.nan),
        policy_limited=value.new_full((len(value), 3), torch.nan),
        stats=PlanStats(
            sims=0,
            rounds=0,
            model_rows=0,
            model_calls=0,
            milliseconds=milliseconds,
            is_deadline_hit=True,
            is_fallback=torch.ones_like(one, dtype=torch.bool),
            bad_rows=0,
            max_depth=0,
            clipped=0,
        ),
    )
