"""Particles: in which futures the plans of a state are imagined (Chua et al. 2018, section 5).

All plans of a state meet the same particles (common random numbers): the same members and, where outcomes are
sampled, the same draws. So plans are compared without the noise of the draw, a score is a function of the
plan, and plans that are kept from one iteration to the next need no second look.
"""

import dataclasses
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem

Transition: TypeAlias = Literal["ts_inf", "ts1", "mean"]
Outcome: TypeAlias = Literal["mean", "sample"]


@dataclasses.dataclass(frozen=True, slots=True)
class Particles:
    """Particles `p` of every state `b`: who predicts which step, with which draws.

    Attributes:
        member: `[h, p, b]`, or None for the mean over members.
        noise: `[h, p, b, obs_dim + 1]` standard normal, or None for means.
        average: `[e, p]`, rows average the particles of one member; a single row where particles belong to no
            member.
        horizon: h, steps.
    """

    member: Int[Tensor, "h p b"] | None
    noise: Float[Tensor, "h p b outcome"] | None
    average: Float[Tensor, "e p"]
    horizon: int

    @property
    def count(self) -> int:
        """Particles of a state."""
        return self.average.shape[1]

    def members(self, plans: int) -> list[Tensor | None]:
        """`h` times `[p b n]` for `n` plans a state; one tensor for all steps where members keep theirs."""
        if self.member is None:
            return [None] * self.horizon
        is_constant = self.member.stride(0) == 0  # expanded from one step, as `ts_inf` makes it
        rows = [_spread(member, plans) for member in (self.member[:1] if is_constant else self.member)]
        return list(rows * self.horizon if is_constant else rows)

    def draws(self, step: int, plans: int) -> Tensor | None:
        """`[p b n, obs_dim + 1]` of a step."""
        # The plans of a state share draws; the copies are views until they are flattened.
        return None if self.noise is None else _spread(self.noise[step], plans)

    def first(self) -> "Particles":
        """The first of every state."""
        return Particles(
            None if self.member is None else self.member[:, :1],
            None if self.noise is None else self.noise[:, :1],
            self.average.new_ones(1, 1),
            self.horizon,
        )

    def states(self, rows: slice) -> "Particles":
        """Those of some states."""
        return dataclasses.replace(
            self,
            member=None if self.member is None else self.member[:, :, rows],
            noise=None if self.noise is None else self.noise[:, :, rows],
        )


def _spread(values: Tensor, plans: int) -> Tensor:
    """`[p, b, *k]` to `[p b n, *k]`."""
    return values[:, :, None].expand(*values.shape[:2], plans, *values.shape[2:]).flatten(0, 2)


def draw_particles(
    problem: PlanningProblem,
    noise: RowNoise,
    *,
    horizon: int,
    transition: Transition,
    count: int,
    outcome: Outcome,
) -> Particles:
    """The particles of a call.

    `ts_inf`: particle p keeps member p mod e for the whole horizon. `ts1`: a member is drawn for each
    particle and step (Chua et al. 2018, section 5). `mean`: one particle follows the mean over members.
    Particles come sorted by member.
    """
    rows, dtype = noise.seeds, problem.dtype
    if transition == "mean":
        return Particles(None, None, torch.ones(1, 1, dtype=dtype, device=rows.device), horizon)
    members = problem.step.ensemble_size
    shape = (horizon, count, len(rows))
    if transition == "ts_inf":
        # Sorted, so that rows of one member stand together and its networks run over a slice.
        owner = (torch.arange(count, device=rows.device) % members).sort().values
        # One step's members for the whole horizon: no memory, and `members` knows them by the stride of 0.
        member = owner[None, :, None].expand(shape)
        used = min(members, count)
        belongs = owner == torch.arange(used, device=rows.device)[:, None]
    else:
        # Sorted within a step for the same reason; a particle changes its member, so its order means nothing.
        draws = noise.uniform("particles", shape[:2]) * members
        member = draws.long().clamp_max(members - 1).permute(1, 2, 0).sort(1).values
        # A single row: particles belong to no member, and a deviation over members is not defined.
        belongs = torch.ones(1, count, dtype=torch.bool, device=rows.device)
    draws = None
    if outcome == "sample":
        draws = noise.normal("outcomes", (*shape[:2], problem.obs_dim + 1)).to(dtype).permute(1, 2, 0, 3)
    # Each member's particles count equally, and each member as much as any other.
    average = belongs.to(dtype)
    return Particles(member, draws, average / average.sum(1, keepdim=True), horizon)
