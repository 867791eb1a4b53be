"""Initial plans: what the policy would do, what that is worth, plans of the step before and of the log."""

import dataclasses
from typing import Final, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mbrl.planning.base import SOURCES, Hints
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem
from mbrl.planning.shooting.particles import Particles
from mbrl.planning.shooting.rollout import Returns, Scores, Tally, pool, roll_out

_DATASET: Final = SOURCES.index("dataset")
_POLICY: Final = SOURCES.index("policy")
_WARM: Final = SOURCES.index("warm")


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyDraws:
    """How the policy proposes plans.

    Attributes:
        count: plans it draws besides that of its mode.
        std: deviation around its mode, half-range units; None draws from the policy itself.
        mix: share of the warm plan in every drawn action (Argenson & Dulac-Arnold 2021, algorithm 2), [0, 1].
    """

    count: int
    std: float | None = None
    mix: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class InitialPlans:
    """What is known of `b` states before the first iteration.

    Attributes:
        policy_plan: `[b, h, act_dim]`, what the policy's mode does if the first particle is right.
        policy: scores `[b, 1]` of the policy's mode, each particle in closed loop.
        plans: `[b, m, h, act_dim]`: the policy's plan, the warm one, one a candidate, elites, draws; actions,
            or residuals to the policy's.
        source: `[b, m]`, index into `SOURCES`.
        warm: `[b, h, act_dim]`, the warm plan with the policy as its tail; the policy's plan without one. As
            `plans`.
        has_warm: `[b]`.
    """

    policy_plan: Float[Tensor, "b h act_dim"]
    policy: Scores
    plans: Float[Tensor, "b m h act_dim"]
    source: Int[Tensor, "b m"]
    warm: Float[Tensor, "b h act_dim"]
    has_warm: Bool[Tensor, "b"]


def make_initial_plans(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    particles: Particles,
    *,
    hints: Hints,
    draws: PolicyDraws,
    noise: RowNoise,
    tally: Tally,
    residuals: bool = False,
) -> InitialPlans:
    """Rolls the policy out, once for all uses: its value, its plans, the tails of plans that are too short.

    The particles of the policy's mode act in closed loop, each in its own future. Everything else becomes a
    plan that is followed blindly later; the j-th such row is rolled out in the means of member j mod e.
    """
    given = _gather(problem, hints, _warm_rows(hints, obs), draws=draws.count, horizon=particles.horizon)
    # 1. One rollout of everything: p rows of the policy itself, m rows whose actions become plans.
    actor = _Actor(problem, particles.count, given, draws, noise, tally, keeps_modes=residuals)
    # [p + m, b] rows, states fastest, as particles have them.
    rows = obs.expand(particles.count + len(given.source), *obs.shape).flatten(0, 1)
    extended = _extend(particles, len(given.source), problem.step.ensemble_size)
    returns = roll_out(problem, rows, actor, extended, plans=1, tally=tally)
    # 2. What the policy is worth: its own rows, each in its particle.
    own = particles.count * len(obs)
    policy = Returns(
        returns.parts[:, :own], returns.uncertainty[:own], returns.halted[:own], returns.limited[:, :own]
    )
    # 3. What was done in the others, and in the first particle by the policy, are the plans.
    taken = torch.stack(actor.taken, 2).transpose(0, 1)  # [b, p + m, h, act_dim]
    policy_actions = taken[:, 0]
    if residuals:
        # What was done beyond the policy's mode in the same state.
        taken = taken - torch.stack(actor.modes, 2).transpose(0, 1)
    policy_plan, others = taken[:, 0], taken[:, particles.count :]
    return InitialPlans(
        policy_plan=policy_actions,
        policy=pool(policy, particles.average, states=len(obs), lcb_coef=problem.pessimism.lcb_coef),
        plans=torch.cat((policy_plan[:, None], others), 1),
        source=torch.cat((torch.full((1, len(obs)), _POLICY, device=obs.device), given.source)).T,
        warm=policy_plan if hints.warm is None else others[:, 0],
        has_warm=given.has_warm,
    )


class _GivenPlans(NamedTuple):
    """Rows `m` whose first actions are given; the first `modes` of them go on with the policy's mode."""

    plans: Float[Tensor, "m b h act_dim"]
    length: Int[Tensor, "m b"]
    source: Int[Tensor, "m b"]
    modes: int
    has_warm: Bool[Tensor, "b"]


def _warm_rows(hints: Hints, obs: Tensor) -> Tensor:
    """`[b]`, states that have a plan from the step before."""
    if hints.warm is None:
        return torch.zeros(len(obs), dtype=torch.bool, device=obs.device)
    return (
        torch.ones(len(obs), dtype=torch.bool, device=obs.device)
        if hints.has_warm is None
        else hints.has_warm
    )


def _gather(
    problem: PlanningProblem, hints: Hints, has_warm: Tensor, *, draws: int, horizon: int
) -> _GivenPlans:
    # Rows of states without a warm plan are the policy's from their first step.
    remembered = torch.where(has_warm, _WARM, _POLICY)
    states, act_dim, modes = len(has_warm), problem.prior.act_dim, 0
    # Rows that end as the policy's mode come first, rows that end as its draws last.
    groups: list[tuple[Tensor, Tensor, Tensor]] = []  # [b, m, l, act_dim], does it count [b], source [b]
    if hints.warm is not None:
        groups.append((hints.warm[:, None], has_warm, remembered))
        modes += 1
    if hints.candidates is not None:
        logged = torch.full_like(remembered, _DATASET)
        groups.append((hints.candidates[:, :, None], torch.ones_like(has_warm), logged))
        modes += hints.candidates.shape[1]
    if hints.elites is not None:
        groups.append((hints.elites, has_warm, remembered))
    empty = torch.zeros(states, draws, 0, act_dim, dtype=problem.dtype, device=has_warm.device)
    groups.append((empty, has_warm, torch.full_like(remembered, _POLICY)))
    # All groups in one tensor, cut or padded to the horizon; `length` says how much of a row is given.
    rows = sum(group[0].shape[1] for group in groups)
    plans = torch.zeros(rows, states, horizon, act_dim, dtype=problem.dtype, device=has_warm.device)
    length = torch.zeros(rows, states, dtype=torch.int64, device=has_warm.device)
    source, first = torch.empty_like(length), 0
    for given, counts, origin in groups:
        steps, these = min(given.shape[2], horizon), slice(first, first + given.shape[1])
        plans[these, :, :steps] = given[:, :, :steps].transpose(0, 1).to(problem.dtype)
        # 0 where the row does not count: the policy then acts from the start.
        length[these], source[these] = counts * steps, origin
        first += given.shape[1]
    return _GivenPlans(plans, length, source, modes, has_warm)


class _Actor:
    """Acts in all rows of that rollout, `[p + m, b]`, and remembers what it did."""

    def __init__(
        self,
        problem: PlanningProblem,
        particles: int,
        given: _GivenPlans,
        draws: PolicyDraws,
        noise: RowNoise,
        tally: Tally,
        *,
        keeps_modes: bool,
    ) -> None:
        self._prior, self._particles, self._given = problem.prior, particles, given
        self._draws, self._tally, self._keeps_modes = draws, tally, keeps_modes
        self._modes = particles + given.modes
        drawn = len(given.source) - given.modes
        self.taken: list[Tensor] = []
        self.modes: list[Tensor] = []  # what the policy would have done there, if that is kept
        self._noise = None
        if drawn:
            shape = (given.plans.shape[2], drawn, given.plans.shape[3])
            # All steps at once, by state: what a state draws does not depend on the batch it is in.
            self._noise = noise.normal("policy", shape).to(problem.dtype).permute(1, 2, 0, 3)  # [h, m, b, d]

    def __call__(self, step: int, obs: Tensor) -> Tensor:
        particles, (plans, length) = self._particles, self._given[:2]
        states = length.shape[1]
        split = self._modes * states
        # The policy's mode in the first rows, its draws in the last.
        action = self._prior.act(obs[:split]).view(self._modes, states, -1)
        if self._keeps_modes:
            self.modes.append(self._prior.act(obs).clamp(-1.0, 1.0).view(-1, states, action.shape[-1]))
        if self._noise is not None:
            drawn = self._draw(obs[split:], self._noise[step].flatten(0, 1)).view(-1, *action.shape[1:])
            action = torch.cat((action, drawn))
        # Given actions overrule it for as long as they last.
        counts = (step < length)[..., None]
        action = torch.cat((action[:particles], torch.where(counts, plans[:, :, step], action[particles:])))
        if self._draws.mix > 0.0:
            self._mix_(action)
        action = self._tally.clip(action)
        self.taken.append(action)
        return action.flatten(0, 1)

    def _draw(self, obs: Tensor, noise: Tensor) -> Tensor:
        if self._draws.std is None:
            return self._prior.act(obs, noise)
        # Perturbed modes, as in MBOP, for policies whose own draws are too narrow or do not exist.
        return torch.add(self._prior.act(obs), noise, alpha=self._draws.std)

    def _mix_(self, action: Tensor) -> None:
        """`a <- (1 - mix) a + mix a_warm` in the policy's draws of states that have a warm plan."""
        drawn = action[len(action) - self._draws.count :]
        share = self._draws.mix * self._given.has_warm.to(action.dtype)[:, None]
        # The first given row is the warm plan, which the policy has extended to this step.
        warm = action[self._particles].clamp(-1.0, 1.0)
        drawn += share * (warm - drawn)


def _extend(particles: Particles, rows: int, members: int) -> Particles:
    """With more particles, the j-th of which follows the means of member j mod e."""
    if rows == 0:
        return particles
    member, noise = particles.member, particles.noise
    if member is not None:
        others = (torch.arange(rows, device=member.device) % members)[None, :, None]
        # Rows that become plans need one future, not an average; different members make different plans.
        member = torch.cat((member, others.expand(len(member), rows, member.shape[2])), 1)
    if noise is not None:
        still = noise.new_zeros(noise.shape[0], rows, *noise.shape[2:])
        noise = torch.cat((noise, still), 1)
    # They count nowhere: only the policy's own rows are pooled to its value.
    none = particles.average.new_zeros(len(particles.average), rows)
    average = torch.cat((particles.average, none), 1)
    return dataclasses.replace(particles, member=member, noise=noise, average=average)
