"""Rollout policy improvement: try an action, then do as the policy does, and see what that gains.

Policy roll-outs (Tesauro & Galperin 1996; Bertsekas, Tsitsiklis & Wu 1997) in a learned ensemble. Values at
leaves tell neighbouring states apart badly, although they tell distant ones well; here they are read after
many steps, or not at all, and what counts is a difference: each candidate against the policy's own action, in
the same member, with the same noise. What members agree on cancels, and so does most of the model's error.
"""

import dataclasses
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import (
    PLANNERS,
    Budget,
    Hints,
    PlannerConfig,
    PlannerEntry,
    PlanResult,
    PlanStats,
    check_call,
    leave_inference,
)
from mbrl.planning.deadline import Costs, Deadline, halve
from mbrl.planning.fallback import act_by_policy
from mbrl.planning.improvement.candidates import Candidates, draw_candidates
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.limits import rank_within
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.shooting.particles import Outcome, Particles, draw_particles
from mbrl.planning.shooting.rollout import CHUNK_ROWS, Returns, Scores, Tally, pool, roll_out


class RolloutPlannerConfig(PlannerConfig):
    """Policy roll-outs as a planner.

    Attributes:
        horizon: h, steps that a candidate is followed: its action, then the policy's.
        draws: candidates near the policy's action.
        radius: of the widest of these draws, in deviations of the logged actions from the policy's; others
            have half and a quarter of it.
        clone_draws: candidates of the behaviour's clone, where the planner has one.
        particles: futures of each candidate; null takes as many as there are members, one each.
        outcome: a member's `mean`, or a `sample` of its Gaussian, the same for all candidates.
        has_tail: whether the critic's value stands for what follows the horizon. Differences of such values
            between neighbouring states are noise unless the critic has converged.
        lcb_coef: deviations over members of the *difference* that are subtracted from its mean.
    """

    horizon: Annotated[int, Field(ge=1, le=100_000)] = 100
    draws: Annotated[int, Field(ge=1, le=10_000)] = 9
    radius: Annotated[float, Field(gt=0, le=10)] = 1.0
    clone_draws: Annotated[int, Field(ge=0, le=10_000)] = 2
    particles: Annotated[int | None, Field(ge=1, le=10_000)] = None
    outcome: Outcome = "mean"
    has_tail: bool = True
    lcb_coef: Annotated[float, Field(ge=0, le=100)] = 1.0


class ScoredActions(NamedTuple):
    """Candidates `n` of states `b`."""

    scores: Scores
    gain: Float[Tensor, "b n"]  # lower bound over members of the difference to the policy's action
    spread: Float[Tensor, "b n"]  # deviation of that difference over members


class RolloutPlanner:
    """Acts as the policy does, unless roll-outs say that another action nearby gains.

    Args:
        problem: what it plans in.
        config: settings.
        clock: for budgets of milliseconds.

    Raises:
        ConfigError: discrete actions.
    """

    def __init__(
        self, problem: PlanningProblem, config: RolloutPlannerConfig, clock: Clock | None = None
    ) -> None:
        if problem.prior.is_discrete:
            raise ConfigError(
                "Policy roll-outs draw continuous actions; use a tree search for discrete ones."
            )
        self._problem, self.config, self._clock = problem, config, clock
        self._followed = problem if config.has_tail else without_leaf(problem)
        self._costs: Costs = {}

    @property
    def problem(self) -> PlanningProblem:
        """What it plans in."""
        return self._problem

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """See `mbrl.planning.base.Planner`.

        `Budget.sims` counts candidates of a state besides the policy's own action; a budget of milliseconds
        leaves out what should not fit, draws near the policy first.
        """
        hints = Hints() if hints is None else hints
        check_call(obs, noise, hints, problem=self._problem)
        with torch.inference_mode():
            result = self._plan(obs.to(self._problem.dtype), budget, noise, hints)
        return leave_inference(result)

    def _plan(self, obs: Tensor, budget: Budget, noise: RowNoise, hints: Hints) -> PlanResult:
        deadline = Deadline(budget, self._clock, self._costs)
        config = self.config
        # 1. Few actions near the policy, its own among them.
        candidates = draw_candidates(
            self._problem,
            obs,
            hints=hints,
            noise=noise,
            draws=config.draws,
            clone_draws=config.clone_draws,
            radius=config.radius,
        )
        most = candidates.action.shape[1] - 1
        most = most if budget.sims is None else min(most, budget.sims)
        sizes = list(reversed(halve(most, 1)))
        count = deadline.most_affordable([(size, ("rollouts", len(obs), size), 1) for size in sizes])
        if not deadline.permits(("rollouts", len(obs), count)):
            return act_by_policy(self._problem, obs, milliseconds=deadline.milliseconds)
        candidates = candidates.first(count + 1)
        # 2. Each is followed by the policy, in the same members with the same noise as the others.
        tally = Tally.empty(obs.device)
        particles = draw_particles(
            self._problem,
            noise,
            horizon=config.horizon,
            transition="ts_inf",
            count=config.particles or self._problem.step.ensemble_size,
            outcome=config.outcome,
        )
        with deadline.timed(("rollouts", len(obs), count)):
            scored = score_first_actions(
                self._followed,
                obs,
                candidates.action,
                particles,
                lcb_coef=config.lcb_coef,
                tally=tally,
            )
        # 3. The largest sure gain, if there is one; else what the policy does.
        return self._report(candidates, scored, count=count, tally=tally, deadline=deadline)

    def _report(
        self, candidates: Candidates, scored: ScoredActions, *, count: int, tally: Tally, deadline: Deadline
    ) -> PlanResult:
        gain = torch.where(scored.gain.isfinite(), scored.gain, -torch.inf)
        gain[:, 0] = 0.0  # over itself: it stands first, so that a tie goes to the policy
        limits, rank = self._problem.limits, gain
        if limits is not None:
            rank = rank_within(gain, scored.scores.excess(limits))
        chosen = rank.argmax(1, keepdim=True)
        known = scored.scores.value[:, 0].isfinite()
        figures = scored.scores.figures.gather(2, chosen.expand(len(scored.scores.figures), -1, -1))[..., 0]
        figures = torch.where(known, figures, 0.0)
        _, value, reward, penalty, bootstrap, uncertainty, _ = figures[:7]
        action = candidates.action.gather(1, chosen[..., None].expand(-1, -1, candidates.action.shape[2]))
        weights = torch.zeros_like(gain).scatter_(1, chosen, 1.0)
        lower = torch.where(known, scored.scores.score.gather(1, chosen)[:, 0], 0.0)
        return PlanResult(
            action=action[:, 0],
            plan=action,
            plan_length=torch.ones_like(chosen[:, 0]),
            candidates=candidates.action,
            weights=weights,
            visits=torch.zeros_like(candidates.source),
            provenance=candidates.source,
            value=value,
            value_lcb=lower,
            reward_part=reward,
            penalty_part=penalty,
            bootstrap_part=bootstrap,
            uncertainty=uncertainty,
            delta_lcb=gain.gather(1, chosen)[:, 0],
            limited=figures[7:].T,
            policy_limited=scored.scores.limited[:, :, 0].T,
            stats=PlanStats(
                sims=count,
                rounds=1,
                model_rows=tally.rows,
                model_calls=tally.calls,
                milliseconds=deadline.milliseconds,
                is_deadline_hit=deadline.is_hit,
                is_fallback=~known,
                bad_rows=int(tally.bad),
                max_depth=self.config.horizon,
                clipped=int(tally.clipped),
            ),
        )


def score_first_actions(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    action: Float[Tensor, "b n act_dim"],
    particles: Particles,
    *,
    lcb_coef: float,
    tally: Tally,
) -> ScoredActions:
    """What first actions are worth when the policy follows, and their gains over the first of them."""
    count = max(1, CHUNK_ROWS // (particles.count * action.shape[1]))
    parts: list[ScoredActions] = []
    for start in range(0, len(obs), count):
        rows = slice(start, start + count)
        parts.append(_score(problem, obs[rows], action[rows], particles.states(rows), lcb_coef, tally))
    figures = torch.cat([part.scores.figures for part in parts], 1)
    gain, spread = (torch.cat([getattr(part, name) for part in parts]) for name in ("gain", "spread"))
    return ScoredActions(Scores(figures), gain, spread)


def _score(
    problem: PlanningProblem, obs: Tensor, action: Tensor, particles: Particles, lcb_coef: float, tally: Tally
) -> ScoredActions:
    states, count = action.shape[:2]
    shape = (particles.count, states, count)
    start = obs[None, :, None].expand(*shape, obs.shape[-1]).flatten(0, 2)
    first = action.expand(particles.count, *action.shape).flatten(0, 2)

    def act(step: int, at: Tensor) -> Tensor:
        return tally.clip(first) if step == 0 else problem.prior.act(at)

    returns = roll_out(problem, start, act, particles, plans=count, tally=tally)
    scores = pool(returns, particles.average, states=states, lcb_coef=problem.pessimism.lcb_coef)
    gain, spread = paired_difference(returns, particles.average, states=states)
    return ScoredActions(scores, gain - lcb_coef * spread if lcb_coef else gain, spread)


def followed_gain(
    problem: PlanningProblem,
    obs: Float[Tensor, "b obs_dim"],
    action: Float[Tensor, "b act_dim"],
    *,
    horizon: int,
    noise: RowNoise,
) -> Float[Tensor, "b"]:
    """What an action gains over the policy's own when the policy follows both; mean over members, no critic.

    Args:
        problem: model and policy.
        obs: states.
        action: first actions, in [-1, 1] or one-hot.
        horizon: steps.
        noise: one stream a state.
    """
    followed = without_leaf(problem)
    with torch.inference_mode():
        obs = obs.to(problem.dtype)
        particles = draw_particles(
            problem,
            noise,
            horizon=horizon,
            transition="ts_inf",
            count=problem.step.ensemble_size,
            outcome="mean",
        )
        both = torch.stack((problem.prior.act(obs), action.to(problem.dtype)), 1)
        tally = Tally.empty(obs.device)
        scored = score_first_actions(followed, obs, both, particles, lcb_coef=0.0, tally=tally)
    return scored.gain[:, 1].clone()


def without_leaf(problem: PlanningProblem) -> PlanningProblem:
    """The same problem, but nothing follows a horizon."""
    return dataclasses.replace(problem, leaf=_NoLeaf())


def paired_difference(
    returns: Returns, average: Float[Tensor, "e p"], *, states: int
) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Mean and deviation over members e of `D_{e,k} = G_{e,k} - G_{e,0}`, candidates against the first.

    The difference is taken within a member, before members are compared: an error that a member makes of all
    candidates alike is in no gain. Population deviation; one member has none.
    """
    members, particles = average.shape
    by_member = average @ returns.parts.view(3, particles, -1)  # [3, e, b n]
    total = (by_member[0] - by_member[1] + by_member[2]).view(members, states, -1)
    difference = total - total[..., :1]
    return difference.mean(0), difference.std(0, correction=0)


class _NoLeaf:
    """Nothing follows the horizon."""

    def value(self, obs: Float[Tensor, "r obs_dim"]) -> Float[Tensor, "c r"]:
        """0 everywhere."""
        return obs.new_zeros(1, len(obs))

    def action_value(
        self, obs: Float[Tensor, "r obs_dim"], action: Float[Tensor, "r act_dim"]
    ) -> Float[Tensor, "c r"]:
        """0 everywhere."""
        del action
        return self.value(obs)


PLANNERS.register("rollout", "Policy roll-outs: an action nearby only where following it surely gains.")(
    PlannerEntry(RolloutPlannerConfig, RolloutPlanner, is_discrete=False, is_continuous=True)
)
