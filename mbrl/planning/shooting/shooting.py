"""Trajectory optimisation: plans are drawn, imagined, and the best of them say where to draw next.

What `mppi`, `icem` and `cem` share. They differ in how they draw, in how they weigh what they keep, and in
what they carry from one iteration to the next.
"""

import abc
import dataclasses
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import (
    SOURCES,
    Budget,
    Hints,
    PlanResult,
    PlanStats,
    check_call,
    leave_inference,
)
from mbrl.planning.deadline import Costs, Deadline, halve
from mbrl.planning.fallback import act_by_policy
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.limits import allowed_only, rank_within
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.shooting.config import ShootingConfig
from mbrl.planning.shooting.initial_plans import InitialPlans, PolicyDraws, make_initial_plans
from mbrl.planning.shooting.particles import Particles, draw_particles
from mbrl.planning.shooting.plans import Plans, ShootingState, report
from mbrl.planning.shooting.residual import add_residual, residual_problem, to_actions
from mbrl.planning.shooting.rollout import Tally, score_plans
from mbrl.planning.shooting.sizes import share_out
from mbrl.planning.shooting.surrogate import quadratic_peak

_SHOOTING: Final = SOURCES.index("shooting")

_FEW_PLANS: Final = 16
"""Of a whole call that is tried first when nothing is known of its cost; two iterations of the least size."""

_TIE: Final = 1e-6
"""Share of a value by which the mean may fall short of what it averages: rounding of float32 sums."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """One call of `plan`."""

    obs: Float[Tensor, "b obs_dim"]
    hints: Hints
    noise: RowNoise
    particles: Particles
    tally: Tally
    deadline: Deadline


class ShootingPlanner(abc.ABC):
    """A search over plans in continuous actions.

    Args:
        problem: what it plans in.
        config: settings.
        clock: for budgets of milliseconds.

    Raises:
        ConfigError: discrete actions; deviations over members where particles belong to no member; a floor of
            the deviation above its ceiling.
    """

    adds_mean: ClassVar[bool] = False
    """Whether the mean itself competes in the last iteration."""
    elite_share: ClassVar[float] = 0.5
    """Elites are at most this share of an iteration's plans."""
    control_cost: float = 0.0
    """Weight of `sum mean (a - mean) / variance`, which ranks plans besides their score."""

    def __init__(self, problem: PlanningProblem, config: ShootingConfig, clock: Clock | None) -> None:
        if problem.prior.is_discrete:
            raise ConfigError(
                "Shooting planners draw continuous actions; use a tree search for discrete ones."
            )
        if problem.pessimism.lcb_coef != 0.0 and config.transition != "ts_inf":
            raise ConfigError(
                f"lcb_coef={problem.pessimism.lcb_coef:g} subtracts deviations over members, and with "
                f"transition={config.transition} no return belongs to a member. "
                "Remedy: transition=ts_inf, or lcb_coef=0."
            )
        if config.std_min > config.std_max:
            raise ConfigError(f"std_min={config.std_min:g} lies above std_max={config.std_max:g}.")
        self._problem, self._config, self._clock = problem, config, clock
        # Only scoring differs: draws, elites and refits are about plans, whatever their entries stand for.
        self._scored = residual_problem(problem) if config.plans == "residuals" else problem
        self._costs: Costs = {}

    @property
    def problem(self) -> PlanningProblem:
        """What it plans in."""
        return self._problem

    @abc.abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """Plans that each iteration scores."""

    @abc.abstractmethod
    def colour(self, noise: Float[Tensor, "b n h act_dim"]) -> Float[Tensor, "b n h act_dim"]:
        """White noise as this planner's noise, of unit variance."""

    @abc.abstractmethod
    def weigh(self, score: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Weights of elites, which sum to 1; 0 where a score is not finite, and all 0 where none is."""

    @abc.abstractmethod
    def keep(self, state: ShootingState) -> Plans | None:
        """Plans that compete again in the next iteration."""

    @abc.abstractmethod
    def remember(self, state: ShootingState) -> Float[Tensor, "b m h act_dim"] | None:
        """Plans for `PlanResult.elites`."""

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """See `mbrl.planning.base.Planner`.

        `Budget.sims` counts plans that are scored for a state; the iterations share them in proportion to
        their usual sizes. A budget of milliseconds shrinks these to what should fit. The initial plans (with
        what the policy is worth) and the check of the result come on top.
        """
        hints = Hints() if hints is None else hints
        check_call(obs, noise, hints, problem=self._problem)
        with torch.inference_mode():
            result = self._plan(obs.to(self._problem.dtype), budget, noise, hints)
        return leave_inference(result)

    def _plan(self, obs: Tensor, budget: Budget, noise: RowNoise, hints: Hints) -> PlanResult:
        deadline = Deadline(budget, self._clock, self._costs)
        start, finish = ("initial plans", len(obs)), ("report", len(obs))
        if not deadline.permits(start):
            return act_by_policy(self._problem, obs, milliseconds=deadline.milliseconds)
        # 1. Initial plans: roll the policy out, once for its value and for all plans that it has a part in.
        with deadline.timed(start):
            call = _Call(obs, hints, noise, self._particles(noise), Tally.empty(obs.device), deadline)
            initial = self._initial_plans(call)
        mean = self._start(initial)
        state = ShootingState(mean, torch.full_like(mean, self._config.std_start), mean)
        # 2. Iterate: draw plans, score them, move towards the best, while there is budget.
        # After the initial plans, whose time is gone: what is left decides the sizes.
        sizes = self._affordable(budget, deadline, states=len(obs))
        work = ("iteration", len(obs), sizes[0])
        for index in deadline.repeat(work, len(sizes), then=finish):
            self._iterate(call, initial, state, size=sizes[index], is_last=index == len(sizes) - 1)
        # 3. Report the plan to follow. Where there is nothing to choose that is other work, timed apart.
        if state.rounds == 0:
            finish = ("report without iterations", len(obs))
        with deadline.timed(finish):
            return self._finish(call, initial, state)

    def _affordable(self, budget: Budget, deadline: Deadline, *, states: int) -> tuple[int, ...]:
        """Sizes of the iterations: of a budget of milliseconds, the most plans that should fit, by halves."""
        most = share_out(self.sizes(), budget.sims)
        if budget.milliseconds is None:
            return most
        # By halves: a handful of sizes is timed again and again, so estimates of their cost are good.
        totals = reversed(halve(sum(most), _FEW_PLANS))
        options = [
            (sizes, ("iteration", states, sizes[0]), len(sizes))
            for sizes in (share_out(most, total) for total in totals)
        ]
        return deadline.most_affordable(options, then=deadline.cost(("report", states)) or 0.0)

    def _particles(self, noise: RowNoise) -> Particles:
        config, members = self._config, self._problem.step.ensemble_size
        return draw_particles(
            self._problem,
            noise,
            horizon=config.horizon,
            transition=config.transition,
            count=members if config.particles is None else config.particles,
            outcome=config.outcome,
        )

    def _initial_plans(self, call: _Call) -> InitialPlans:
        config = self._config
        draws = PolicyDraws(config.policy_plans - 1, config.policy_std, config.policy_mix)
        return make_initial_plans(
            self._problem,
            call.obs,
            call.particles,
            hints=call.hints,
            draws=draws,
            noise=call.noise,
            tally=call.tally,
            residuals=config.plans == "residuals",
        )

    def _start(self, initial: InitialPlans) -> Tensor:
        """The first mean: the warm plan where there is one, else what the policy would do, or zeros."""
        cold = initial.plans[:, 0]
        if self._config.start == "zero":
            cold = torch.zeros_like(cold)
        return torch.where(initial.has_warm[:, None, None], initial.warm, cold)

    def _iterate(
        self, call: _Call, initial: InitialPlans, state: ShootingState, *, size: int, is_last: bool
    ) -> None:
        """Draws, scores, keeps the best, moves mean and deviation."""
        # 1. Draw plans around the mean; the first iteration scores the initial plans among them.
        actions, source = self._propose(call, initial, state, size=size, is_last=is_last)
        # 2. Score: roll them out in every particle. Plans kept from before compete with their old scores.
        scores = score_plans(self._scored, call.obs, actions, call.particles, tally=call.tally)
        scored = Plans(actions, source, scores)
        if state.rounds == 0:
            # Initial plans come first among the scored ones; a small budget may have cut them.
            state.injected = scored.first(min(initial.plans.shape[1], size))
        everyone = scored if state.kept is None else state.kept.join(scored)
        # 3. Select the elites.
        rank = self._rank(everyone, state)
        count = min(self._config.elites, max(1, int(self.elite_share * rank.shape[1])))
        # Stable: among equal plans the earlier source stays first.
        elites = everyone.take(torch.argsort(rank, dim=1, descending=True, stable=True)[:, :count])
        # Ranked anew on the elites alone, since weights are taken over them.
        state.elites, state.weights = elites, self.weigh(self._rank(elites, state))
        if self._problem.limits is not None:
            state.weights = allowed_only(state.weights, elites.scores.excess(self._problem.limits))
        self._note_best(state, elites.first(1))
        # 4. Move mean and deviation to those of the elites.
        self._refit(state, elites.actions, state.weights)
        if self._config.refines:
            self._model(state, scored)
        state.kept = self.keep(state)
        state.sims, state.rounds = state.sims + size, state.rounds + 1

    def _model(self, state: ShootingState, scored: Plans) -> None:
        """Where a quadratic model of all plans so far is largest; kept plans are among those of before."""
        state.seen = scored if state.seen is None else state.seen.join(scored)
        flat = state.seen.actions.flatten(2)
        score = state.seen.scores.score
        if self._problem.limits is not None:
            # At a limit the order of plans jumps, which no quadratic can: those beyond say nothing.
            score = score.masked_fill(state.seen.scores.excess(self._problem.limits) > 0.0, -torch.inf)
        peak = quadratic_peak(flat, score)
        if peak is not None:
            shape = (len(flat), 1, *state.mean.shape[1:])
            # A state without a model of its own proposes its mean.
            place = torch.where(peak[1][:, None], peak[0], state.mean.flatten(1))
            state.peak = place.view(shape).clamp(-1.0, 1.0)

    def _note_best(self, state: ShootingState, leader: Plans) -> None:
        """The best plan of all iterations."""
        if state.best is None:
            state.best = leader
        else:
            both = state.best.join(leader)  # a tie goes to the one of before
            state.best = both.take(self._within(both).argmax(1, keepdim=True))

    def _rank(self, plans: Plans, state: ShootingState) -> Tensor:
        """What is within the limits first; less `control_cost sum mean (a - mean) / variance`."""
        if self.control_cost == 0.0:
            return self._within(plans)
        # From the ratio of the two sampling densities (Williams et al.
        # 2017): large controls cost, in units of the noise.
        pull = state.mean / state.std.square()
        away = plans.actions - state.mean[:, None]
        return self._within(plans) - self.control_cost * (pull[:, None] * away).sum((2, 3))

    def _within(self, plans: Plans) -> Tensor:
        """Scores; those of plans beyond the limits below all others."""
        limits, score = self._problem.limits, plans.scores.score
        return score if limits is None else rank_within(score, plans.scores.excess(limits))

    def _propose(
        self, call: _Call, initial: InitialPlans, state: ShootingState, *, size: int, is_last: bool
    ) -> tuple[Tensor, Tensor]:
        """`size` plans, at first the initial ones among them, and where they come from."""
        ready, source = initial.plans[:, :0], initial.source[:, :0]
        if state.rounds == 0:
            ready, source = initial.plans[:, :size], initial.source[:, :size]
        # The mean competes once, when it has been refined: it may be better than anything that was drawn.
        if is_last and self.adds_mean and ready.shape[1] < size:
            ready = torch.cat((ready, state.mean[:, None].clamp(-1.0, 1.0)), 1)
            source = torch.cat((source, torch.full_like(initial.source[:, :1], _SHOOTING)), 1)
        if state.peak is not None and ready.shape[1] < size:
            ready = torch.cat((ready, state.peak), 1)
            source = torch.cat((source, torch.full_like(initial.source[:, :1], _SHOOTING)), 1)
        fresh = size - ready.shape[1]
        shape = (fresh, *state.mean.shape[1:])
        # Named by the round: a draw does not depend on how many rounds there will be.
        white = call.noise.normal(f"plans {state.rounds}", shape).to(state.mean.dtype)
        drawn = torch.addcmul(state.mean[:, None], state.std[:, None], self.colour(white))
        origin = torch.full((len(drawn), fresh), _SHOOTING, device=drawn.device)
        return torch.cat((ready, call.tally.clip(drawn)), 1), torch.cat((source, origin), 1)

    def _refit(self, state: ShootingState, actions: Tensor, weights: Tensor) -> None:
        """`mean <- (1 - m) sum w a + m mean`, the deviation likewise, within its floor and ceiling."""
        config = self._config
        # Weighted moments of the elites: mean sum w a, variance sum w (a - mean)^2.
        centre = torch.einsum("bk,bkhd->bhd", weights, actions)
        spread = torch.einsum("bk,bkhd->bhd", weights, (actions - centre[:, None]).square()).sqrt()
        known = (weights.sum(1) > 0.0)[:, None, None]  # no elite is finite: stay
        moved = torch.lerp(centre, state.mean, config.momentum)
        # The floor keeps the search alive where elites agree; the ceiling bounds it where they lie far apart.
        widened = torch.lerp(spread, state.std, config.momentum).clamp(config.std_min, config.std_max)
        # A mean of numbers at a bound may be a digit beyond it.
        state.centre = torch.where(known, centre.clamp(-1.0, 1.0), state.centre)
        state.mean = torch.where(known, moved, state.mean)
        state.std = torch.where(known, widened, state.std)

    def _choose(self, call: _Call, state: ShootingState) -> Plans:
        """The plan to follow, `[b, 1]`.

        A mean of plans is none of them: between two ways around an obstacle lies the obstacle. So the mean
        stands only where it is worth at least what it averages, and does not halt where the best does not.
        """
        assert state.best is not None
        assert state.elites is not None
        assert state.weights is not None
        best, elites, weights = state.best, state.elites, state.weights
        if self._config.execute == "best":
            return best
        if self._config.execute == "sample":
            # Gumbel-max: argmax (log w + gumbel) is a draw by w, and a weight of 0 is never drawn.
            gumbel = call.noise.gumbel("execute", (weights.shape[1],)).to(weights.dtype)
            return elites.take((weights.log() + gumbel).argmax(1, keepdim=True))
        # The mean as a plan of its own: what is it worth, against what it averages? And the model's maximum.
        actions = state.centre[:, None]
        actions = actions if state.peak is None else torch.cat((actions, state.peak), 1)
        scores = score_plans(self._scored, call.obs, actions, call.particles, tally=call.tally)
        refined = Plans(actions, torch.full_like(best.source, _SHOOTING).expand(actions.shape[:2]), scores)
        refined = refined.take(self._within(refined).argmax(1, keepdim=True))
        score = elites.scores.score
        average = torch.where(weights > 0.0, weights * score, 0.0).sum(1)
        # With a slack for rounding: the mean of plans that are all alike is worth what they are.
        worth = refined.scores.score[:, 0]
        enough = worth >= average - _TIE * average.abs()
        stands = enough & worth.isfinite() & ~(refined.scores.halts & ~best.scores.halts)[:, 0]
        if self._problem.limits is not None:
            over, least = (p.scores.excess(self._problem.limits)[:, 0] for p in (refined, best))
            stands &= over <= least
        return refined.where(stands, best)

    def _finish(self, call: _Call, initial: InitialPlans, state: ShootingState) -> PlanResult:
        own = Plans(initial.policy_plan[:, None], initial.source[:, :1], initial.policy)
        failed = torch.ones(len(call.obs), dtype=torch.bool, device=call.obs.device)
        if state.elites is None or state.weights is None:
            return report(
                own,
                own,
                None,
                failed=failed,
                stats=self._stats(call, state, failed=failed),
            )
        chosen, elites, remembered = self._choose(call, state), state.elites, self.remember(state)
        if self._config.plans == "residuals":
            chosen, elites, remembered = self._as_actions(call, chosen, elites, remembered)
        # Where even the best plan has no value the policy's own is followed.
        failed = ~chosen.scores.score[:, 0].isfinite()
        if self._problem.limits is not None:
            # The policy corrects itself in closed loop, so it may keep to what no plan of actions keeps to.
            over, least = (p.scores.excess(self._problem.limits)[:, 0] for p in (chosen, own))
            failed |= own.scores.score[:, 0].isfinite() & (least < over)
        return report(
            own,
            own.where(failed, chosen),
            (elites, state.weights * ~failed[:, None]),
            failed=failed,
            stats=self._stats(call, state, failed=failed),
            remembered=remembered,
        )

    def _as_actions(
        self, call: _Call, chosen: Plans, elites: Plans, remembered: Tensor | None
    ) -> tuple[Plans, Plans, Tensor | None]:
        """Residual plans as the actions that they stand for; of elites the first ones, which are compared."""
        residuals = chosen.actions if remembered is None else torch.cat((chosen.actions, remembered), 1)
        actions = to_actions(self._problem, call.obs, residuals, call.particles, tally=call.tally)
        count = elites.actions.shape[1]
        rows = call.obs[:, None].expand(len(call.obs), count, call.obs.shape[1]).flatten(0, 1)
        first = add_residual(self._problem.prior, rows, elites.actions[:, :, 0].flatten(0, 1))
        return (
            dataclasses.replace(chosen, actions=actions[:, :1]),
            dataclasses.replace(elites, actions=first.view(len(call.obs), count, 1, -1)),
            None if remembered is None else actions[:, 1:],
        )

    def _stats(self, call: _Call, state: ShootingState, *, failed: Tensor) -> PlanStats:
        return PlanStats(
            sims=state.sims,
            rounds=state.rounds,
            model_rows=call.tally.rows,
            model_calls=call.tally.calls,
            milliseconds=call.deadline.milliseconds,
            is_deadline_hit=call.deadline.is_hit,
            is_fallback=failed,
            bad_rows=int(call.tally.bad),
            max_depth=self._config.horizon,
            clipped=int(call.tally.clipped),
        )
