"""What plans are worth in the model: rollouts of every particle, their returns pooled to scores of plans."""

import dataclasses
import math
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.planning.problem.problem import (
    Edge,
    Limits,
    PlanningProblem,
    StepOut,
    mean_step,
    pessimistic_edge,
)
from mbrl.planning.shooting.particles import Particles

ActFn: TypeAlias = Callable[[int, Tensor], Tensor]
"""Actions `[r, act_dim]` at step t in observations `[r, obs_dim]`."""

CHUNK_ROWS: Final = 8192
"""Rows that are imagined together: their activations in layers of 200 to 256 units fit a cache of 8 MB."""


@dataclasses.dataclass(slots=True)
class Tally:
    """Counts of what went through the model; added to in place.

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


class Returns(NamedTuple):
    """Returns of rows `r` by parts; NaN where the model was not finite."""

    parts: Float[Tensor, "3 r"]  # rewards, penalties, bootstrap: discounted sums
    uncertainty: Float[Tensor, "r"]  # of the first step
    halted: Bool[Tensor, "r"]  # the uncertainty exceeded its threshold on the way
    limited: Float[Tensor, "3 r"]  # whether the constraint was broken; the steps' costs; steps that broke it


def roll_out(
    problem: PlanningProblem,
    obs: Float[Tensor, "r obs_dim"],
    act: ActFn,
    particles: Particles,
    *,
    plans: int,
    tally: Tally,
) -> Returns:
    """`sum_t g^t alive_t (r_t - lambda u_t) + g^h alive_h V(s_h)` by parts.

    The step that ends a row counts its reward; nothing after it does, and no value is read there. Rows that
    have ended, or whose model was not finite, stay where they were, since shapes are fixed.

    Args:
        problem: the model and what uncertainty costs.
        obs: `[r, obs_dim]`, rows p, b, n, the last one fastest.
        act: acts in [-1, 1].
        particles: of the states.
        plans: n, rows of a particle and state.
        tally: counts.
    """
    # g^t times the trust of the steps so far.
    weight = obs.new_ones(len(obs))
    zero = torch.zeros_like(weight)
    alive = torch.ones_like(weight, dtype=torch.bool)
    bad, halted, first = torch.zeros_like(alive), torch.zeros_like(alive), zero
    parts, limited = obs.new_zeros(3, len(obs)), obs.new_zeros(3, len(obs))
    for step, member in enumerate(particles.members(plans)):
        # 1. Every row steps in its particle's member, with its particle's noise.
        out = one_step(
            problem, obs, act(step, obs), member=member, noise=particles.draws(step, plans), tally=tally
        )
        edge, finite = _price(problem, out, zero)
        first = out.uncertainty if step == 0 else first
        # 2. Rows that are not finite are out for good: their return will be NaN.
        bad |= alive & ~finite
        alive &= finite
        halted |= alive & (out.uncertainty > problem.pessimism.halt_threshold)
        _note_limits(limited, out, alive)
        # 3. Add g^t omega_0 ... omega_{t-1} times the step's reward, penalty and share of the critic.
        for part, amount in zip(parts, (edge.reward, edge.penalty, edge.mixed), strict=True):
            part.addcmul_(weight, torch.where(alive, amount, zero))
        # 4. Go on where the step did not end; the discount holds the trust of a soft horizon.
        alive &= ~edge.ended
        weight = weight * torch.where(alive, edge.discount, zero)
        obs = torch.where(alive[:, None], out.next_observation, obs)
    # 5. What goes on after the horizon is the critic's.
    value = problem.leaf_value(obs)
    bad |= alive & ~value.isfinite()
    parts[2].addcmul_(weight, torch.where(alive, value, zero))
    tally.bad += bad.sum()
    return Returns(parts.masked_fill_(bad, math.nan), first, halted, limited)


def _note_limits(limited: Float[Tensor, "3 r"], out: StepOut, alive: Bool[Tensor, "r"]) -> None:
    """Books a step of the rows that are alive: a broken constraint for good, its cost undiscounted."""
    if out.broken is not None:
        broken = torch.where(alive, out.broken, torch.zeros_like(out.broken))
        limited[0] = torch.maximum(limited[0], broken)
        limited[2] += broken
    if out.cost is not None:
        limited[1] += torch.where(alive, out.cost, torch.zeros_like(out.cost))


def _price(problem: PlanningProblem, out: StepOut, zero: Tensor) -> tuple[Edge, Tensor]:
    """The step by parts, and where it is finite."""
    # One sum a row: NaN and infinity survive it, and it is a single pass.
    finite = (out.next_observation.sum(-1) + out.reward + out.uncertainty).isfinite()
    next_value = zero
    # Without a soft horizon only the last state needs a value, which saves the critic h - 1 times.
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
    return mean_step(out)


@dataclasses.dataclass(frozen=True, slots=True)
class Scores:
    """Plans `n` of states `b`; the first axis is that of the figures.

    Attributes:
        figures: `[10, b, n]`: `score`, the lower bound that plans are ranked by, -inf where it is not finite;
            `value`; its parts (rewards, penalties, bootstrap); uncertainty of the first step; share of the
            particles that halt; share that breaks the constraint; sum of the steps' costs; number of
            steps that break it.
    """

    figures: Float[Tensor, "10 b n"]

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

    def excess(self, limits: Limits) -> Float[Tensor, "b n"]:
        """How far plans are beyond the limits; 0 within them."""
        return limits.excess(*self.limited)

    @property
    def limited(self) -> Float[Tensor, "3 b n"]:
        """Shares, costs and steps that limits are about; see `Limits.excess`."""
        return self.figures[7:]


def pool(returns: Returns, average: Float[Tensor, "e p"], *, states: int, lcb_coef: float) -> Scores:
    """Particles to members, members to a mean less `lcb_coef` deviations over members.

    The particles of a member are averaged first: so the deviation is the disagreement between members, not
    the noise within them, and a member counts once whatever its number of particles.
    """
    members, particles = average.shape
    shape = (particles, states, -1)
    by_member = average @ returns.parts.view(3, particles, -1)  # [3, e, b n]
    total = by_member[0] - by_member[1] + by_member[2]
    parts = by_member.mean(1)
    value = parts[0] - parts[1] + parts[2]
    score = value
    if lcb_coef != 0.0 and members > 1:
        # Of total returns, not of parts: a member that promises more reward and less bootstrap may agree.
        score = value - lcb_coef * total.std(0, correction=0)
    # One particle that was not finite makes the whole plan the worst: nothing is known of it.
    score = torch.where(score.isfinite(), score, -math.inf)
    # Of the first step, the only one whose state is known.
    uncertainty = returns.uncertainty.view(particles, -1).mean(0)
    halts = returns.halted.view(particles, -1).to(value.dtype).mean(0)
    limited = (average @ returns.limited.view(3, particles, -1)).mean(1)
    figures = torch.cat((torch.stack((score, value)), parts, torch.stack((uncertainty, halts)), limited))
    return Scores(figures.view(10, *shape[1:]))


def score_plans(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    plans: Float[Tensor, "b n h act_dim"],
    particles: Particles,
    *,
    tally: Tally,
) -> Scores:
    """What plans are worth when they are followed blindly; about eight thousand rows at a time.

    A chunk goes through all its steps before the next one, so that activations stay in the cache.
    """
    # In states, since the plans of a state are scored in its particles.
    count = max(1, CHUNK_ROWS // (particles.count * plans.shape[1]))
    chunks = [slice(k, k + count) for k in range(0, len(obs), count)]
    scores = [_score(problem, obs[c], plans[c], particles.states(c), tally=tally).figures for c in chunks]
    return Scores(scores[0] if len(scores) == 1 else torch.cat(scores, 1))


def _score(
    problem: PlanningProblem, obs: Tensor, plans: Tensor, particles: Particles, *, tally: Tally
) -> Scores:
    states, count = plans.shape[:2]
    shape = (particles.count, states, count)
    start = obs[None, :, None].expand(*shape, obs.shape[-1]).flatten(0, 2)
    actions = plans.permute(2, 0, 1, 3)

    def act(step: int, _: Tensor) -> Tensor:
        # The state does not matter: the plan is followed in every particle.
        return actions[step].expand(*shape, -1).flatten(0, 2)

    returns = roll_out(problem, start, act, particles, plans=count, tally=tally)
    return pool(returns, particles.average, states=states, lcb_coef=problem.pessimism.lcb_coef)
