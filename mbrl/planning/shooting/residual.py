"""Residual plans: what is added to the policy's own action at every step of a rollout, in closed loop.

An error early in a plan of actions is carried on by all later ones; the policy corrects it. So around a good
policy the steps of a residual plan hardly interact, and few draws find the best one, also where the dynamics
are unstable. All residuals 0 is the policy itself.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.problem.problem import PlanningProblem, Prior, StepFn, StepOut
from mbrl.planning.shooting.particles import Particles
from mbrl.planning.shooting.rollout import Tally, roll_out


@dataclasses.dataclass(frozen=True, slots=True)
class ResidualStep:
    """A `StepFn` of residuals: `step(s, clip(pi(s) + delta))`.

    Attributes:
        step: of actions.
        prior: pi.
    """

    step: StepFn
    prior: Prior

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
        """See `StepFn`; `action` is the residual."""
        return self.step(obs, add_residual(self.prior, obs, action), member=member, noise=noise)


def add_residual(
    prior: Prior, obs: Float[Tensor, "r obs_dim"], residual: Float[Tensor, "r act_dim"]
) -> Float[Tensor, "r act_dim"]:
    """`clip(clip(pi(s)) + delta)`, the policy's mode as planners act it out."""
    # The policy is clipped first: a residual against a saturated policy acts from the bound, not from beyond.
    return (prior.act(obs).clamp(-1.0, 1.0) + residual).clamp(-1.0, 1.0)


def residual_problem(problem: PlanningProblem) -> PlanningProblem:
    """The same problem, with residuals for actions; for `score_plans` alone, as its prior still acts."""
    return dataclasses.replace(problem, step=ResidualStep(problem.step, problem.prior))


def to_actions(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    residuals: Float[Tensor, "b n h act_dim"],
    particles: Particles,
    *,
    tally: Tally,
) -> Float[Tensor, "b n h act_dim"]:
    """What is done under residual plans if the first particle is right.

    Args:
        problem: of actions.
        obs: where the plans begin.
        residuals: the plans.
        particles: of the call.
        tally: counts.
    """
    count = residuals.shape[1]
    # By step, so that each is a contiguous block of rows.
    entries = residuals.permute(2, 0, 1, 3).flatten(1, 2)  # [h, b n, act_dim]
    taken: list[Tensor] = []

    def act(step: int, obs: Tensor) -> Tensor:
        taken.append(add_residual(problem.prior, obs, entries[step]))
        return taken[-1]

    rows = obs[:, None].expand(len(obs), count, obs.shape[1]).flatten(0, 1)
    # In the first particle alone: the actions that are followed need one future.
    roll_out(problem, rows, act, particles.first(), plans=count, tally=tally)
    return torch.stack(taken, 1).view_as(residuals)
