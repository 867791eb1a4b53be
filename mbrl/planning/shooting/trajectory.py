"""What plans are worth in the model: particles, members, discounting, endings and doubt.

All plans of a state meet the same futures (common random numbers): the same members and, where outcomes are
sampled, the same draws. So plans are compared without the luck of the draw, a score is a function of the
plan, and plans that are kept from one iteration to the next need no second look.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Edge, PlanningProblem, StepOut, pessimistic_edge

Transition: TypeAlias = Literal["ts_inf", "ts1", "mean"]
Outcome: TypeAlias = Literal["mean", "sample"]
ActFn: TypeAlias = Callable[[int, Tensor], Tensor]
"""Actions `[r, act_dim]` at step t in observations `[r, obs_dim]`."""

_CHUNK_ROWS: Final = 8192


@dataclasses.dataclass(slots=True)
class Tally:
    """What went through the model; added to in place.

    Attributes:
        rows: rows of members; a step of all members counts each.
        calls: sequential calls.
        bad: `[]`, rows that came back as NaN or infinite.
        clipped: `[]`, actions that had to be clipped.
    """

    rows: int
    calls: int
    bad: Int[Tensor, ""]
    clipped: Int[Tensor, ""]

    @classmethod
    def empty(cls, device: torch.device) -> "Tally":
        """Nothing yet."""
        return cls(0, 0, *(torch.zeros((), dtype=torch.int64, device=device) for _ in range(2)))

    def clip(self, action: Float[Tensor, "*n act_dim"]) -> Float[Tensor, "*n act_dim"]:
        """Into [-1, 1]; counts the actions that this changes."""
        self.clipped += (action.abs() > 1.0).any(-1).sum()
        return action.clamp(-1.0, 1.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Futures:
    """Particles `p` of every state `b`: who predicts which step, with which draws.

    Attributes:
        member: `[h, p, b]`, or None for the mean over members.
        noise: `[h, p, b, obs_dim + 1]` standard normal, or None for means.
        average: `[e, p]`, rows average the particles of one member; a single row where particles belong to no
            member.
    """

    member: Int[Tensor, "h p b"] | None
    noise: Float[Tensor, "h p b outcome"] | None
    average: Float[Tensor, "e p"]
    horizon: int

    @property
    def particles(self) -> int:
        """Particles of a state."""
        return self.average.shape[1]

    def members(self, plans: int) -> list[Tensor | None]:
        """`h` times `[p b n]` for `n` plans a state; one tensor for all steps where members keep theirs."""
        if self.member is None:
            return [None] * self.horizon
        is_constant = self.member.stride(0) == 0
        rows = [_spread(member, plans) for member in (self.member[:1] if is_constant else self.member)]
        return list(rows * self.horizon if is_constant else rows)

    def draws(self, step: int, plans: int) -> Tensor | None:
        """`[p b n, obs_dim + 1]` of a step."""
        return None if self.noise is None else _spread(self.noise[step], plans)

    def states(self, rows: slice) -> "Futures":
        """Those of some states."""
        return dataclasses.replace(
            self,
            member=None if self.member is None else self.member[:, :, rows],
            noise=None if self.noise is None else self.noise[:, :, rows],
        )


def _spread(values: Tensor, plans: int) -> Tensor:
    """`[p, b, *k]` to `[p b n, *k]`."""
    return values[:, :, None].expand(*values.shape[:2], plans, *values.shape[2:]).flatten(0, 2)


def draw_futures(
    problem: PlanningProblem,
    noise: RowNoise,
    *,
    horizon: int,
    transition: Transition,
    particles: int,
    outcome: Outcome,
) -> Futures:
    """The futures of a call.

    `ts_inf`: particle p keeps member p mod e for the whole horizon. `ts1`: a member is drawn for each
    particle and step (Chua et al. 2018, section 5). `mean`: one particle follows the mean over members.
    Particles come sorted by member.
    """
    rows, dtype = noise.seeds, problem.dtype
    if transition == "mean":
        return Futures(None, None, torch.ones(1, 1, dtype=dtype, device=rows.device), horizon)
    members = problem.step.ensemble_size
    shape = (horizon, particles, len(rows))
    if transition == "ts_inf":
        owner = (torch.arange(particles, device=rows.device) % members).sort().values
        member = owner[None, :, None].expand(shape)
        used = min(members, particles)
        belongs = owner == torch.arange(used, device=rows.device)[:, None]
    else:
        draws = noise.uniform("particles", shape[:2]) * members
        member = draws.long().clamp_max(members - 1).permute(1, 2, 0).sort(1).values
        belongs = torch.ones(1, particles, dtype=torch.bool, device=rows.device)
    draws = None
    if outcome == "sample":
        draws = noise.normal("outcomes", (*shape[:2], problem.obs_dim + 1)).to(dtype).permute(1, 2, 0, 3)
    average = belongs.to(dtype)
    return Futures(member, draws, average / average.sum(1, keepdim=True), horizon)


class Imagined(NamedTuple):
    """Returns of rows `r` by parts; NaN where the model was not finite."""

    parts: Float[Tensor, "3 r"]  # rewards, penalties, bootstrap: discounted sums
    uncertainty: Float[Tensor, "r"]  # of the first step
    halted: Bool[Tensor, "r"]  # the uncertainty exceeded its threshold on the way


def imagine(
    problem: PlanningProblem,
    obs: Float[Tensor, "r obs_dim"],
    act: ActFn,
    futures: Futures,
    *,
    plans: int,
    tally: Tally,
) -> Imagined:
    """`sum_t g^t alive_t (r_t - lambda u_t) + g^h alive_h V(s_h)` by parts.

    The step that ends a row counts its reward; nothing after it does, and no value is read there. Rows that
    have ended, or whose model was not finite, stay where they were, since shapes are fixed.

    Args:
        problem: the model and what doubt costs.
        obs: `[r, obs_dim]`, rows p, b, n, the last one fastest.
        act: acts in [-1, 1].
        futures: of the states.
        plans: n, rows of a particle and state.
        tally: counts.
    """
    weight = obs.new_ones(len(obs))
    zero = torch.zeros_like(weight)
    alive = torch.ones_like(weight, dtype=torch.bool)
    bad, halted, first = torch.zeros_like(alive), torch.zeros_like(alive), zero
    parts = obs.new_zeros(3, len(obs))
    for step, member in enumerate(futures.members(plans)):
        out = one_step(
            problem, obs, act(step, obs), member=member, noise=futures.draws(step, plans), tally=tally
        )
        edge, finite = _book(problem, out, zero)
        first = out.uncertainty if step == 0 else first
        bad |= alive & ~finite
        alive &= finite
        halted |= alive & (out.uncertainty > problem.pessimism.halt_threshold)
        for part, amount in zip(parts, (edge.reward, edge.penalty, edge.mixed), strict=True):
            part.addcmul_(weight, torch.where(alive, amount, zero))
        alive &= ~edge.ended
        weight = weight * torch.where(alive, edge.discount, zero)
        obs = torch.where(alive[:, None], out.next_observation, obs)
    value = problem.leaf_value(obs)
    bad |= alive & ~value.isfinite()
    parts[2].addcmul_(weight, torch.where(alive, value, zero))
    tally.bad += bad.sum()
    return Imagined(parts.masked_fill_(bad, math.nan), first, halted)


def _book(problem: PlanningProblem, out: StepOut, zero: Tensor) -> tuple[Edge, Tensor]:
    """The step by parts, and where it is finite."""
    finite = (out.next_observation.sum(-1) + out.reward + out.uncertainty).isfinite()
    next_value = zero
    if problem.pessimism.soft_horizon_coef != 0.0:
        next_value = problem.leaf_value(out.next_observation)
        finite &= next_value.isfinite()
    edge = pessimistic_edge(out, next_value, discount=problem.discount, pessimism=problem.pessimism)
    return edge, finite


def one_step(
    problem: PlanningProblem,
    obs: Float[Tensor, "r obs_dim"],
    action: Float[Tensor, "r act_dim"],
    *,
    member: Int[Tensor, "r"] | None,
    noise: Float[Tensor, "r outcome"] | None,
    tally: Tally,
) -> StepOut:
    """A step of each row's member, or of the mean over members: it ends where more than half of them end."""
    out = problem.step(obs, action, member=member, noise=noise)
    tally.calls += 1
    if member is not None:
        tally.rows += len(obs)
        return out
    tally.rows += len(obs) * problem.step.ensemble_size
    share = out.terminated.to(obs.dtype).mean(0)
    return StepOut(out.next_observation.mean(0), out.reward.mean(0), share > 0.5, out.uncertainty)


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Plans `n` of states `b`; the first axis is that of the figures.

    Attributes:
        figures: `[7, b, n]`: `score`, the lower bound that plans are ranked by, -inf where it is not finite;
            `value`; its parts (rewards, penalties, bootstrap); uncertainty of the first step; share of the
            particles that halt.
    """

    figures: Float[Tensor, "7 b n"]

    @property
    def score(self) -> Float[Tensor, "b n"]:
        """`mean_e G_e - kappa std_e G_e`."""
        return self.figures[0]

    @property
    def value(self) -> Float[Tensor, "b n"]:
        """`mean_e G_e`."""
        return self.figures[1]

    @property
    def parts(self) -> Float[Tensor, "3 b n"]:
        """Rewards, penalties and bootstrap of the value."""
        return self.figures[2:5]

    @property
    def uncertainty(self) -> Float[Tensor, "b n"]:
        """Of the first step."""
        return self.figures[5]

    @property
    def halts(self) -> Bool[Tensor, "b n"]:
        """Whether any particle halts."""
        return self.figures[6] > 0.0


def pool(imagined: Imagined, average: Float[Tensor, "e p"], *, states: int, lcb_coef: float) -> Scores:
    """Particles to members, members to a mean less `lcb_coef` deviations over members.

    The particles of a member are averaged first: so the deviation is doubt between members, not luck within
    them, and a member counts once whatever its number of particles.
    """
    members, particles = average.shape
    shape = (particles, states, -1)
    by_member = average @ imagined.parts.view(3, particles, -1)  # [3, e, b n]
    returns = by_member[0] - by_member[1] + by_member[2]
    parts = by_member.mean(1)
    value = parts[0] - parts[1] + parts[2]
    score = value
    if lcb_coef != 0.0 and members > 1:
        score = value - lcb_coef * returns.std(0, correction=0)
    score = torch.where(score.isfinite(), score, -math.inf)
    uncertainty = imagined.uncertainty.view(particles, -1).mean(0)
    halts = imagined.halted.view(particles, -1).to(value.dtype).mean(0)
    figures = torch.cat((torch.stack((score, value)), parts, torch.stack((uncertainty, halts))))
    return Scores(figures.view(7, *shape[1:]))


def score_plans(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    plans: Float[Tensor, "b n h act_dim"],
    futures: Futures,
    *,
    tally: Tally,
) -> Scores:
    """What plans are worth when they are followed blindly; about eight thousand rows at a time.

    A chunk goes through all its steps before the next one, so that activations stay in the cache.
    """
    count = max(1, _CHUNK_ROWS // (futures.particles * plans.shape[1]))
    chunks = [slice(k, k + count) for k in range(0, len(obs), count)]
    scores = [_score(problem, obs[c], plans[c], futures.states(c), tally=tally).figures for c in chunks]
    return Scores(scores[0] if len(scores) == 1 else torch.cat(scores, 1))


def _score(problem: PlanningProblem, obs: Tensor, plans: Tensor, futures: Futures, *, tally: Tally) -> Scores:
    states, count = plans.shape[:2]
    shape = (futures.particles, states, count)
    start = obs[None, :, None].expand(*shape, obs.shape[-1]).flatten(0, 2)
    actions = plans.permute(2, 0, 1, 3)

    def act(step: int, _: Tensor) -> Tensor:
        return actions[step].expand(*shape, -1).flatten(0, 2)

    imagined = imagine(problem, start, act, futures, plans=count, tally=tally)
    return pool(imagined, futures.average, states=states, lcb_coef=problem.pessimism.lcb_coef)
