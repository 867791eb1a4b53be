"""Trajectory optimisation: plans are drawn, imagined, and the best of them say where to draw next.

What `mppi`, `icem` and `cem` share. They differ in how they draw, in how they weigh what they keep, and in
what they carry from one iteration to the next.
"""

import abc
import dataclasses
import itertools
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import (
    SOURCES,
    Budget,
    Hints,
    PlannerConfig,
    PlanResult,
    PlanStats,
    check_call,
    leave_inference,
)
from mbrl.planning.deadline import Costs, Deadline, halve
from mbrl.planning.fallback import act_by_policy
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.shooting.opening import Opening, PolicyDraws, open_search
from mbrl.planning.shooting.plans import Plans, Search, report
from mbrl.planning.shooting.trajectory import (
    Futures,
    Outcome,
    Tally,
    Transition,
    draw_futures,
    score_plans,
)

Start: TypeAlias = Literal["policy", "zero"]
Execute: TypeAlias = Literal["mean", "best", "sample"]

_SHOOTING: Final = SOURCES.index("shooting")
_LEAST_PLANS: Final = 8
_FEW_PLANS: Final = 16
_TIE: Final = 1e-6


class ShootingConfig(PlannerConfig):
    """What shooting planners share.

    Attributes:
        horizon: h, steps of a plan.
        population: plans of an iteration.
        iterations: at most; a budget may end them earlier.
        elites: best plans that an iteration learns from.
        momentum: share of the old mean and deviation that stays.
        std_start: deviation of the first draws, half-range units.
        std_min: floor of the deviation.
        std_max: ceiling of the deviation.
        start: where the first mean comes from without a warm plan: what the policy would do, or 0.
        policy_plans: plans of the policy among the first candidates: its mode's, then draws.
        policy_std: deviation of those draws around the mode, half-range units; null draws from the policy.
        policy_mix: share of the warm plan in those draws.
        transition: `ts_inf`: a particle keeps its member; `ts1`: a member is drawn at each step; `mean`: the
            mean over members.
        particles: futures of each plan; null takes as many as there are members, one each.
        outcome: a member's `mean`, or a `sample` of its Gaussian.
        execute: the `mean` of the elites, unless it is worse than they are (then their best), the `best`
            plan seen, or an elite drawn by its weight (to explore).
    """

    horizon: Annotated[int, Field(ge=1, le=1000)] = 5
    population: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    iterations: Annotated[int, Field(ge=1, le=1000)] = 3
    elites: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    std_start: Annotated[float, Field(gt=0, le=10)] = 0.5
    std_min: Annotated[float, Field(ge=0, le=10)] = 0.0
    std_max: Annotated[float, Field(gt=0, le=10)] = 0.5
    start: Start = "policy"
    policy_plans: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    policy_std: Annotated[float | None, Field(ge=0, le=10)] = None
    policy_mix: Annotated[float, Field(ge=0, le=1)] = 0.0
    transition: Transition = "ts_inf"
    particles: Annotated[int | None, Field(ge=1, le=10_000)] = None
    outcome: Outcome = "mean"
    execute: Execute = "mean"


@dataclasses.dataclass(frozen=True, slots=True)
class _Call:
    """One call of `plan`."""

    obs: Float[Tensor, "b obs_dim"]
    hints: Hints
    noise: RowNoise
    futures: Futures
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
    def keep(self, search: Search) -> Plans | None:
        """Plans that compete again in the next iteration."""

    @abc.abstractmethod
    def remember(self, search: Search) -> Float[Tensor, "b m h act_dim"] | None:
        """Plans for `PlanResult.elites`."""

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """See `mbrl.planning.base.Planner`.

        `Budget.sims` counts plans that are scored for a state; the iterations share them in proportion to
        their usual sizes. A budget of milliseconds shrinks these to what should fit. The opening (what the
        policy is worth) and the check of the result come on top.
        """
        hints = Hints() if hints is None else hints
        check_call(obs, noise, hints, problem=self._problem)
        with torch.inference_mode():
            result = self._plan(obs.to(self._problem.dtype), budget, noise, hints)
        return leave_inference(result)

    def _plan(self, obs: Tensor, budget: Budget, noise: RowNoise, hints: Hints) -> PlanResult:
        deadline = Deadline(budget, self._clock, self._costs)
        start, finish = ("opening", len(obs)), ("finish", len(obs))
        if not deadline.permits(start):
            return act_by_policy(self._problem, obs, milliseconds=deadline.milliseconds)
        with deadline.timed(start):
            call = _Call(obs, hints, noise, self._futures(noise), Tally.empty(obs.device), deadline)
            opening = self._open(call)
        mean = self._start(opening)
        search = Search(mean, torch.full_like(mean, self._config.std_start), mean)
        sizes = self._affordable(budget, deadline, states=len(obs))
        work = ("iteration", len(obs), sizes[0])
        for index in deadline.repeat(work, len(sizes), then=finish):
            self._iterate(call, opening, search, size=sizes[index], is_last=index == len(sizes) - 1)
        if search.rounds == 0:  # with nothing to choose it is other work
            finish = ("surrender", len(obs))
        with deadline.timed(finish):
            return self._finish(call, opening, search)

    def _affordable(self, budget: Budget, deadline: Deadline, *, states: int) -> tuple[int, ...]:
        """Sizes of the iterations: of a budget of milliseconds, the most plans that should fit, by halves.

        What was never tried is taken to cost twice as much as half of it; a planner that is new to a number
        of states begins with few plans.
        """
        most = share_out(self.sizes(), budget.sims)
        if budget.milliseconds is None:
            return most
        finish, expected = deadline.cost(("finish", states)) or 0.0, None
        chosen: tuple[int, ...] = ()
        for total in reversed(halve(sum(most), _FEW_PLANS)):
            sizes = share_out(most, total)
            work = ("iteration", states, sizes[0])
            known = deadline.cost(work)
            expected = known if known is not None or expected is None else 2.0 * expected
            if chosen and (expected is None or not deadline.fits(len(sizes) * expected + finish)):
                deadline.refuse(work)
                break
            chosen = sizes
        return chosen

    def _futures(self, noise: RowNoise) -> Futures:
        config, members = self._config, self._problem.step.ensemble_size
        return draw_futures(
            self._problem,
            noise,
            horizon=config.horizon,
            transition=config.transition,
            particles=members if config.particles is None else config.particles,
            outcome=config.outcome,
        )

    def _open(self, call: _Call) -> Opening:
        config = self._config
        draws = PolicyDraws(config.policy_plans - 1, config.policy_std, config.policy_mix)
        return open_search(
            self._problem,
            call.obs,
            call.futures,
            hints=call.hints,
            draws=draws,
            noise=call.noise,
            tally=call.tally,
        )

    def _start(self, opening: Opening) -> Tensor:
        cold = opening.policy_plan
        if self._config.start == "zero":
            cold = torch.zeros_like(cold)
        return torch.where(opening.has_warm[:, None, None], opening.warm, cold)

    def _iterate(self, call: _Call, opening: Opening, search: Search, *, size: int, is_last: bool) -> None:
        """Draws, scores, keeps the best, moves mean and deviation."""
        actions, source = self._propose(call, opening, search, size=size, is_last=is_last)
        scored = Plans(
            actions,
            source,
            score_plans(self._problem, call.obs, actions, call.futures, tally=call.tally),
        )
        if search.rounds == 0:
            search.injected = scored.first(min(opening.plans.shape[1], size))
        everyone = scored if search.kept is None else search.kept.join(scored)
        rank = self._rank(everyone, search)
        count = min(self._config.elites, max(1, int(self.elite_share * rank.shape[1])))
        elites = everyone.take(torch.argsort(rank, dim=1, descending=True, stable=True)[:, :count])
        search.elites, search.weights = elites, self.weigh(self._rank(elites, search))
        leader = elites.first(1)
        if search.best is None:
            search.best = leader
        else:
            is_better = leader.scores.score[:, 0] > search.best.scores.score[:, 0]
            search.best = leader.where(is_better, search.best)
        self._refit(search, elites.actions, search.weights)
        search.kept = self.keep(search)
        search.sims, search.rounds = search.sims + size, search.rounds + 1

    def _rank(self, plans: Plans, search: Search) -> Tensor:
        if self.control_cost == 0.0:
            return plans.scores.score
        pull = search.mean / search.std.square()
        away = plans.actions - search.mean[:, None]
        return plans.scores.score - self.control_cost * (pull[:, None] * away).sum((2, 3))

    def _propose(
        self, call: _Call, opening: Opening, search: Search, *, size: int, is_last: bool
    ) -> tuple[Tensor, Tensor]:
        """`size` plans, those of the opening first, and where they come from."""
        ready, source = opening.plans[:, :0], opening.source[:, :0]
        if search.rounds == 0:
            ready, source = opening.plans[:, :size], opening.source[:, :size]
        if is_last and self.adds_mean and ready.shape[1] < size:
            ready = torch.cat((ready, search.mean[:, None]), 1)
            source = torch.cat((source, torch.full_like(opening.source[:, :1], _SHOOTING)), 1)
        fresh = size - ready.shape[1]
        shape = (fresh, *search.mean.shape[1:])
        white = call.noise.normal(f"plans {search.rounds}", shape).to(search.mean.dtype)
        drawn = torch.addcmul(search.mean[:, None], search.std[:, None], self.colour(white))
        origin = torch.full((len(drawn), fresh), _SHOOTING, device=drawn.device)
        return torch.cat((ready, call.tally.clip(drawn)), 1), torch.cat((source, origin), 1)

    def _refit(self, search: Search, actions: Tensor, weights: Tensor) -> None:
        config = self._config
        centre = torch.einsum("bk,bkhd->bhd", weights, actions)
        spread = torch.einsum("bk,bkhd->bhd", weights, (actions - centre[:, None]).square()).sqrt()
        known = (weights.sum(1) > 0.0)[:, None, None]
        moved = torch.lerp(centre, search.mean, config.momentum)
        widened = torch.lerp(spread, search.std, config.momentum).clamp(config.std_min, config.std_max)
        search.centre = torch.where(known, centre, search.centre)
        search.mean = torch.where(known, moved, search.mean)
        search.std = torch.where(known, widened, search.std)

    def _choose(self, call: _Call, search: Search) -> Plans:
        """The plan to follow, `[b, 1]`.

        A mean of plans is none of them: between two ways around an obstacle lies the obstacle. So the mean
        stands only where it is worth at least what it averages, and does not halt where the best does not.
        """
        assert search.best is not None
        assert search.elites is not None
        assert search.weights is not None
        best, elites, weights = search.best, search.elites, search.weights
        if self._config.execute == "best":
            return best
        if self._config.execute == "sample":
            gumbel = call.noise.gumbel("execute", (weights.shape[1],)).to(weights.dtype)
            return elites.take((weights.log() + gumbel).argmax(1, keepdim=True))
        actions = search.centre[:, None]
        scores = score_plans(self._problem, call.obs, actions, call.futures, tally=call.tally)
        score = elites.scores.score
        average = torch.where(weights > 0.0, weights * score, 0.0).sum(1)
        enough = scores.score[:, 0] >= average - _TIE * average.abs()
        stands = enough & scores.score[:, 0].isfinite() & ~(scores.halts & ~best.scores.halts)[:, 0]
        return Plans(actions, torch.full_like(best.source, _SHOOTING), scores).where(stands, best)

    def _finish(self, call: _Call, opening: Opening, search: Search) -> PlanResult:
        own = Plans(opening.policy_plan[:, None], opening.source[:, :1], opening.policy)
        failed = torch.ones(len(call.obs), dtype=torch.bool, device=call.obs.device)
        if search.elites is None or search.weights is None:
            return report(
                own,
                own,
                None,
                failed=failed,
                stats=self._stats(call, search, failed=failed),
            )
        chosen = self._choose(call, search)
        failed = ~chosen.scores.score[:, 0].isfinite()
        return report(
            own,
            own.where(failed, chosen),
            (search.elites, search.weights * ~failed[:, None]),
            failed=failed,
            stats=self._stats(call, search, failed=failed),
            remembered=self.remember(search),
        )

    def _stats(self, call: _Call, search: Search, *, failed: Tensor) -> PlanStats:
        return PlanStats(
            sims=search.sims,
            rounds=search.rounds,
            model_rows=call.tally.rows,
            model_calls=call.tally.calls,
            milliseconds=call.deadline.milliseconds,
            is_deadline_hit=call.deadline.is_hit,
            is_fallback=failed,
            bad_rows=int(call.tally.bad),
            max_depth=self._config.horizon,
            clipped=int(call.tally.clipped),
        )


def share_out(sizes: tuple[int, ...], sims: int | None) -> tuple[int, ...]:
    """Sizes of iterations that add up to `sims`, in proportion; few sims make few iterations of 8 or more."""
    if sims is None:
        return sizes
    rounds = min(len(sizes), max(1, sims // _LEAST_PLANS))
    ends = [sims * sum(sizes[: k + 1]) // sum(sizes[:rounds]) for k in range(rounds)]
    return tuple(end - start for start, end in itertools.pairwise((0, *ends)))
