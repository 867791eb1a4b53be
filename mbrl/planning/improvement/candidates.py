"""Actions that are held against the policy's own: few, and where the log has been."""

from typing import Final, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.base import SOURCES, Hints
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem

_LADDER: Final = (0.25, 0.5, 1.0)
"""Shares of the radius: gains lie near a policy that is good already, and farther from one that is not."""


class Candidates(NamedTuple):
    """First actions of `b` states; the policy's own comes first."""

    action: Float[Tensor, "b k act_dim"]
    source: Int[Tensor, "b k"]  # index into `SOURCES`

    def first(self, count: int) -> "Candidates":
        """The first few of every state."""
        return Candidates(self.action[:, :count], self.source[:, :count])


def draw_candidates(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    *,
    hints: Hints,
    noise: RowNoise,
    draws: int,
    clone_draws: int,
    radius: float,
) -> Candidates:
    """The policy's mode, given actions, the next action of the plan before, draws of the clone, draws nearby.

    Draws near the mode have the deviations `radius`, half and a quarter of it in turn, in units of
    `problem.action_spread`: how far logged actions lie from the policy's in each dimension, so that a
    dimension that the log never tried stays where it is.

    Args:
        problem: its policy, and the clone if there is one.
        obs: states.
        hints: logged actions and the plan before.
        noise: one stream a state.
        draws: near the mode.
        clone_draws: of the clone; none where there is no clone.
        radius: of the widest draws near the mode.
    """
    mode = problem.prior.act(obs)
    shape = (len(obs), -1, problem.prior.act_dim)
    parts = [(mode[:, None], "policy")]
    if hints.candidates is not None:
        parts.append((hints.candidates.to(mode.dtype), "dataset"))
    if hints.warm is not None:
        # Rows without a plan before offer the mode a second time, which never wins against the first.
        known = torch.ones_like(obs[:, 0], dtype=torch.bool) if hints.has_warm is None else hints.has_warm
        parts.append((torch.where(known[:, None], hints.warm[:, 0].to(mode.dtype), mode)[:, None], "warm"))
    if problem.clone is not None and clone_draws > 0:
        white = noise.normal("clone", (clone_draws, shape[2])).to(mode.dtype).transpose(0, 1)
        parts.append((problem.clone.sample(obs, white).transpose(0, 1), "clone"))
    white = noise.normal("near", (draws, shape[2])).to(mode.dtype)
    radii = radius * torch.tensor(_LADDER, dtype=mode.dtype, device=mode.device)
    scale = radii[torch.arange(draws, device=mode.device) % len(_LADDER), None] * problem.action_spread.to(
        mode
    )
    parts.append((mode[:, None] + scale * white, "flat_policy"))
    action = torch.cat([part for part, _ in parts], 1).clamp(-1.0, 1.0)
    origin = [SOURCES.index(name) for part, name in parts for _ in range(part.shape[1])]
    source = torch.tensor(origin, device=obs.device).expand(len(obs), -1)
    return Candidates(action, source)
