"""A fitted ensemble as the step of a planning problem."""

from typing import Final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.core.protocols import DynamicsModel, RewardFn, SamplingModel, TerminationFn
from mbrl.nets.action_box import ActionBox
from mbrl.planning.problem.problem import StepOut, UncertaintyFn

_TERMINATES_ABOVE: Final = 0.5
"""Probability above which a step ends the task: ending is then the likelier of the two."""


class LearnedStep:
    """One imagined step in a fitted ensemble; a `StepFn`.

    Args:
        model: the members.
        termination: probability of termination; above 0.5 a step ends the task.
        box: maps [-1, 1] to the task's actions; None for one-hot actions, which pass as they are.
        uncertainty: measures u; None computes none, and a row that asks for one member costs one member.
        reward: known rule in the place of the members' reward, or None.
    """

    def __init__(
        self,
        model: DynamicsModel,
        termination: TerminationFn,
        box: ActionBox | None,
        *,
        uncertainty: UncertaintyFn | None = None,
        reward: RewardFn | None = None,
    ) -> None:
        self.model, self.termination, self.box = model, termination, box
        self.uncertainty, self.reward = uncertainty, reward

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        return self.model.ensemble_size

    @torch.no_grad()
    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        *,
        member: Int[Tensor, "r"] | None = None,
        noise: Float[Tensor, "r outcome"] | None = None,
    ) -> StepOut:
        """See `mbrl.planning.problem.problem.StepFn`; all members are given the same draws."""
        # The model was fitted in environment units.
        raw = action if self.box is None else self.box.unscale(action)
        uncertainty = torch.zeros_like(obs[:, 0])
        if member is not None and self.uncertainty is None:
            moments = self.model.predict_member(obs, raw, member)
        else:
            # u compares the members, so that a row that follows one of them still costs them all.
            posterior = self.model.predict(obs, raw)
            if self.uncertainty is not None:
                uncertainty = self.uncertainty(obs, raw, posterior)
            moments = (posterior.mean, posterior.variance, posterior.reward_mean, posterior.reward_variance)
            if member is not None:
                rows = torch.arange(len(obs), device=obs.device)
                # `[e, r, ...]` to each row's own member.
                moments = tuple(part[member, rows] for part in moments)
        # Uncertainty first, draws last: u is of the step, not of its outcome.
        if member is not None and noise is not None and isinstance(self.model, SamplingModel):
            next_obs, reward = self.model.draw_member(obs, raw, member, noise)
        else:
            next_obs, reward = _draw(*moments, noise=noise)
        if self.reward is not None:
            reward = for_every_member(self.reward, obs, raw, next_obs)
        return StepOut(next_obs, reward, has_terminated(self.termination, obs, raw, next_obs), uncertainty)


def _draw(
    mean: Tensor, variance: Tensor, reward: Tensor, reward_variance: Tensor, *, noise: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`s' = mu + sigma eps` and the reward likewise, from the last column of the noise."""
    if noise is None:
        return mean, reward
    next_obs = torch.addcmul(mean, variance.sqrt(), noise[:, :-1])
    return next_obs, torch.addcmul(reward, reward_variance.sqrt(), noise[:, -1])


def has_terminated(
    termination: TerminationFn, obs: Tensor, action: Tensor, next_obs: Float[Tensor, "*e r obs_dim"]
) -> Bool[Tensor, "*e r"]:
    """Whether a step ends the task, with probability above 0.5, for each member's successor."""
    return for_every_member(termination, obs, action, next_obs) > _TERMINATES_ABOVE


def for_every_member(
    rule: TerminationFn | RewardFn, obs: Tensor, action: Tensor, next_obs: Float[Tensor, "*e r obs_dim"]
) -> Float[Tensor, "*e r"]:
    """What a rule says of a step with each member's successor, in one pass."""
    if next_obs.dim() == 2:
        return rule(obs, action, next_obs)
    members = len(next_obs)
    obs, action = (x.expand(members, *x.shape).flatten(0, 1) for x in (obs, action))
    return rule(obs, action, next_obs.flatten(0, 1)).view(members, -1)
