"""What plans may not do, and what their steps cost: rules over (s, a, s') that hold beside the reward.

A constraint is a chance constraint: it may be broken in a stated share of the imagined futures (members, and
particles of a member), and where plans are left that keep to it no other is chosen. Sources: Blackmore et al.
2010 ("A probabilistic particle-control approximation of chance-constrained stochastic predictive control")
for shares over sampled futures; Deb 2000 ("An efficient constraint handling method for genetic algorithms")
for the order of plans: those within the limits first, others by how far they exceed them.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.protocols import RewardFn
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.model import for_every_member
from mbrl.planning.problem.problem import Limits, PlanningProblem, StepFn, StepOut


def rank_within(score: Float[Tensor, "b n"], excess: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Scores, but those of plans beyond the limits lie below all others: by excess first, then by score.

    The places of the latter are a spread of the scores apart in all, so that weights by score stay sensible
    where nothing keeps to the limits. -inf stays.

    Args:
        score: finite or -inf.
        excess: 0 within the limits.
    """
    is_finite, is_over = score.isfinite(), excess > 0.0
    high = score.amax(1, keepdim=True)
    low = torch.where(is_finite, score, torch.inf).amin(1, keepdim=True)
    unit = (high - low).nan_to_num(posinf=0.0, neginf=0.0)
    unit = torch.where(unit > 0.0, unit, torch.maximum(low.abs().nan_to_num(posinf=0.0), unit + 1.0))
    order = torch.argsort(score, dim=1, descending=True, stable=True)
    order = order.gather(1, torch.argsort(excess.gather(1, order), dim=1, stable=True))
    places = torch.arange(score.shape[1], device=score.device).expand_as(order)
    place = torch.empty_like(order).scatter_(1, order, places).to(score.dtype)
    below = low - unit * (1.0 + place) / score.shape[1]
    return torch.where(is_finite & is_over, below, score)


def allowed_only(weights: Float[Tensor, "b k"], excess: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """No weight for elites beyond the limits, where another has some: nothing moves towards these."""
    allowed = weights * (excess <= 0.0)
    total = allowed.sum(1, keepdim=True)
    return torch.where(total > 0.0, allowed / total.clamp_min(1e-30), weights)


@dataclasses.dataclass(frozen=True, slots=True)
class LimitedStep:
    """A `StepFn` that also tells whether a step breaks the constraint, and what it costs.

    Attributes:
        step: of the model.
        box: maps [-1, 1] to the task's actions; None for one-hot actions.
        constraint: 1 for steps that keep to it and 0 for others; None for none.
        cost: of a step, cost units; None for none.
        price: of a unit of cost, which the reward is reduced by.
    """

    step: StepFn
    box: ActionBox | None
    constraint: RewardFn | None
    cost: RewardFn | None
    price: float = 0.0

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        return self.step.ensemble_size

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        *,
        member: Int[Tensor, "r"] | None = None,
        noise: Float[Tensor, "r outcome"] | None = None,
    ) -> StepOut:
        """See `StepFn`."""
        out = self.step(obs, action, member=member, noise=noise)
        raw = action if self.box is None else self.box.unscale(action)
        if self.constraint is not None:
            kept = for_every_member(self.constraint, obs, raw, out.next_observation)
            out = out._replace(broken=(kept == 0.0).to(out.reward.dtype))
        if self.cost is not None:
            cost = for_every_member(self.cost, obs, raw, out.next_observation).to(out.reward.dtype)
            reward = out.reward - self.price * cost if self.price else out.reward
            out = out._replace(cost=cost, reward=reward)
        return out


def with_limits(
    problem: PlanningProblem,
    limits: Limits,
    *,
    box: ActionBox | None = None,
    constraint: RewardFn | None = None,
    cost: RewardFn | None = None,
    price: float = 0.0,
) -> PlanningProblem:
    """The problem with limits to its plans; its step tells of each step what they are about.

    Args:
        problem: without limits.
        limits: shares and costs.
        box: maps [-1, 1] to the actions that the rules read; None where they read actions as they are.
        constraint: see `LimitedStep`.
        cost: likewise.
        price: of a unit of cost, reward units.
    """
    step = LimitedStep(problem.step, box, constraint, cost, price)
    return dataclasses.replace(problem, step=step, limits=limits)
