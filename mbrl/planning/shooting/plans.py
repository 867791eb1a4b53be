"""Plans with what they are worth, where an optimisation of them stands, and what it reports."""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.planning.base import PlanResult, PlanStats
from mbrl.planning.shooting.rollout import Scores


@dataclasses.dataclass(frozen=True, slots=True)
class Plans:
    """Scored plans `n` of states `b`.

    Attributes:
        actions: `[b, n, h, act_dim]`.
        source: `[b, n]`, index into `SOURCES`.
        scores: of the plans.
    """

    actions: Float[Tensor, "b n h act_dim"]
    source: Int[Tensor, "b n"]
    scores: Scores

    def take(self, index: Int[Tensor, "b k"]) -> "Plans":
        """Some of each state's plans."""
        actions = self.actions.take_along_dim(index[:, :, None, None], 1)
        # [10, b, n] by [b, k]: all figures of a plan move together.
        figures = self.scores.figures.take_along_dim(index[None], 2)
        return Plans(actions, self.source.gather(1, index), Scores(figures))

    def first(self, count: int) -> "Plans":
        """The first few of each state's plans."""
        return Plans(
            self.actions[:, :count], self.source[:, :count], Scores(self.scores.figures[:, :, :count])
        )

    def where(self, condition: Bool[Tensor, "b"], other: "Plans") -> "Plans":
        """These in states where the condition holds, others elsewhere."""
        return Plans(
            torch.where(condition[:, None, None, None], self.actions, other.actions),
            torch.where(condition[:, None], self.source, other.source),
            Scores(torch.where(condition[:, None], self.scores.figures, other.scores.figures)),
        )

    def join(self, other: "Plans") -> "Plans":
        """These and others."""
        return Plans(
            torch.cat((self.actions, other.actions), 1),
            torch.cat((self.source, other.source), 1),
            Scores(torch.cat((self.scores.figures, other.scores.figures), 2)),
        )


@dataclasses.dataclass(slots=True)
class ShootingState:
    """Where the optimisation of plans stands.

    Attributes:
        mean: `[b, h, act_dim]`, of the next draws.
        std: `[b, h, act_dim]`, of the next draws.
        centre: `[b, h, act_dim]`, weighted mean of the elites.
        injected: initial plans, scored.
        kept: plans that compete again in the next iteration.
        elites: of the last iteration, best first.
        weights: `[b, k]`, of the elites.
        best: `[b, 1]`, the best plan so far.
        seen: all plans that were scored, where a model of them is wanted.
        peak: `[b, 1, h, act_dim]`, where that model is largest; None without one.
        sims: plans scored for each state.
        rounds: iterations done.
    """

    mean: Float[Tensor, "b h act_dim"]
    std: Float[Tensor, "b h act_dim"]
    centre: Float[Tensor, "b h act_dim"]
    injected: Plans | None = None
    kept: Plans | None = None
    elites: Plans | None = None
    weights: Float[Tensor, "b k"] | None = None
    best: Plans | None = None
    seen: Plans | None = None
    peak: Float[Tensor, "b 1 h act_dim"] | None = None
    sims: int = 0
    rounds: int = 0


def report(
    own: Plans,
    chosen: Plans,
    elites: tuple[Plans, Tensor] | None,
    *,
    failed: Bool[Tensor, "b"],
    stats: PlanStats,
    remembered: Float[Tensor, "b m l act_dim"] | None = None,
) -> PlanResult:
    """The result of a call; the policy's own action is the first candidate and takes what weight is left.

    Args:
        own: `[b, 1]`, the policy's plan.
        chosen: `[b, 1]`, the plan to follow.
        elites: with their weights; None where no iteration was done.
        failed: `[b]`, where the policy's plan is the chosen one for want of another.
        stats: what it cost.
        remembered: plans for the next step.
    """
    # Without an iteration nothing is compared; empty slices keep the shapes below.
    compared, weights = (own.take(own.source[:, :0]), own.scores.score[:, :0]) if elites is None else elites
    # 1 where no elite has weight: the policy's action then is the improved policy.
    left = (weights.sum(1, keepdim=True) <= 0.0).to(weights.dtype)
    plan, scores = chosen.actions[:, 0], chosen.scores
    # -inf ranks plans; to callers a plan without a value is NaN.
    lower = torch.where(scores.score.isfinite(), scores.score, torch.nan)[:, 0]
    reward_part, penalty_part, bootstrap_part = scores.parts[:, :, 0]
    source = torch.cat((own.source, compared.source), 1)
    return PlanResult(
        action=plan[:, 0],
        plan=plan,
        plan_length=torch.full_like(failed, plan.shape[1], dtype=torch.int64),
        candidates=torch.cat((own.actions[:, :, 0], compared.actions[:, :, 0]), 1),
        weights=torch.cat((left, weights), 1),
        visits=torch.zeros_like(source),
        provenance=source,
        value=scores.value[:, 0],
        value_lcb=lower,
        reward_part=reward_part,
        penalty_part=penalty_part,
        bootstrap_part=bootstrap_part,
        uncertainty=scores.uncertainty[:, 0],
        # Both in the same particles, so that luck of the draw cancels.
        delta_lcb=lower - own.scores.score[:, 0],
        limited=scores.limited[:, :, 0].T,
        policy_limited=own.scores.limited[:, :, 0].T,
        stats=stats,
        elites=remembered,
    )
