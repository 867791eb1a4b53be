"""When a planner may override its policy: where gains of such a size have been real ones before.

An estimated gain is the largest of many noisy numbers, and what it says of itself is worth nothing. So gains
are estimated at held-out logged states, the actions that they recommend are followed in a model that neither
the planner nor its policy was trained in, and the level is found above which they were real on average.
"""

import dataclasses
from typing import Annotated, Final, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from mbrl.planning.base import Budget, Hints, Planner, PlanResult
from mbrl.planning.certificate import LEVEL, bound_gain
from mbrl.planning.improvement.rollout import followed_gain
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import Limits, PlanningProblem

SHARES: Final = (1.0, 0.5, 0.25, 0.1)
"""Of the states where something seems to gain, from all of them to those with the largest gains."""

_CHUNK: Final = 256
"""States planned together; bounds memory, as a search keeps trees for all of them."""

_LEAST_EPISODES: Final = 5
"""Below which resampled episodes bound nothing."""


class GateConfig(BaseModel):
    """Whether gains have to prove themselves before a planner may override its policy.

    Attributes:
        by: `judge`, a model of the log that trained neither policy nor planner; or `none`: every gain is
            believed, and a planner may be worse than its policy.
        states: held-out states where gains are estimated, at most.
        horizon: steps that the policy follows an action for in the judging model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    by: Literal["judge", "none"] = "judge"
    states: Annotated[int, Field(ge=20, le=1_000_000)] = 400
    horizon: Annotated[int, Field(ge=1, le=100_000)] = 200


class GatePoint(BaseModel):
    """What became of gains above a level.

    Attributes:
        level: of the estimated gain, return units.
        states: with a larger one.
        episodes: that they come from.
        estimated: their mean.
        realised: mean gain in the judging model.
        low: lower end of its one-sided interval over episodes, or None with too few episodes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    level: Annotated[float, Field(ge=0)]
    states: int
    episodes: int
    estimated: float
    realised: float
    low: float | None


class Gate(BaseModel):
    """Whether, and above which estimated gain, a planner may take the place of its policy.

    Attributes:
        threshold: estimated gains above it are acted upon, return units; None lets the policy act always.
        points: by level, upwards.
        confidence: of each interval; together they err with a probability of 5 % at most (Bonferroni).
        correlation: Spearman's, of estimated with realised gains over states where something seems to gain;
            None with fewer than three.
        estimated: gains at the states, return units.
        realised: gains of the same actions in the judging model.
        horizon: steps that these were followed.
        asked: states.
        compared: of these, the ones where the planner told its gain over the policy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    threshold: Annotated[float, Field(ge=0)] | None
    points: tuple[GatePoint, ...]
    confidence: float
    correlation: float | None
    estimated: tuple[float, ...]
    realised: tuple[float, ...]
    horizon: int
    asked: int
    compared: int

    @property
    def is_open(self) -> bool:
        """Whether any gain is believed."""
        return self.threshold is not None

    @property
    def verdict(self) -> str:
        """In words."""
        if self.threshold is not None:
            return f"Open: estimated gains above {self.threshold:.3g} were real ones on held-out states."
        if self.compared == 0:
            return (
                "Closed: the planner compares nothing with its policy, and that acts (gate.by=none: plans)."
            )
        if not self.estimated:
            return "Closed: nowhere on held-out states did anything seem to gain; the policy acts."
        return "Closed: no level of estimated gains proved real on held-out states; the policy acts."


class _Tried(NamedTuple):
    estimated: Float[Tensor, "n"]
    realised: Float[Tensor, "n"]
    episode: Int[Tensor, "n"]
    compared: int


def calibrate_gate(
    planner: Planner,
    judge: PlanningProblem,
    obs: Float[Tensor, "n obs_dim"],
    episode: Int[Tensor, "n"],
    *,
    horizon: int,
    budget: Budget,
    generator: torch.Generator,
) -> Gate:
    """Plans at held-out states, follows the plans in another model, and finds the level that held.

    The level is the least of four whose gains have a positive lower bound, all states with a gain first.

    Args:
        planner: tells `delta_lcb`, its estimate of the gain over the policy.
        judge: the same policy in a model that trained neither policy nor planner.
        obs: states of held-out episodes, raw units.
        episode: of each state; whole episodes are resampled.
        horizon: steps that actions are followed for in the judging model.
        budget: of a plan.
        generator: of the planner's draws and the resamples.
    """
    tried = _try(planner, judge, obs, episode, horizon=horizon, budget=budget, generator=generator)
    confidence = 1.0 - (1.0 - LEVEL) / len(SHARES)
    points: list[GatePoint] = []
    threshold: float | None = None
    for share in SHARES if len(tried.estimated) else ():
        level = 0.0 if share == 1.0 else float(tried.estimated.quantile(1.0 - share))
        above = tried.estimated > level
        if not bool(above.any()):
            continue
        point = _point(tried, above, level=level, confidence=confidence, generator=generator)
        points.append(point)
        if threshold is None and point.low is not None and point.low > 0.0:
            threshold = level
    return Gate(
        threshold=threshold,
        points=tuple(points),
        confidence=confidence,
        correlation=_rank_correlation(tried.estimated, tried.realised),
        estimated=tuple(map(float, tried.estimated)),
        realised=tuple(map(float, tried.realised)),
        horizon=horizon,
        asked=len(obs),
        compared=tried.compared,
    )


def _try(
    planner: Planner,
    judge: PlanningProblem,
    obs: Tensor,
    episode: Tensor,
    *,
    horizon: int,
    budget: Budget,
    generator: torch.Generator,
) -> _Tried:
    """Estimated and realised gains, of the states where the planner sees a gain."""
    seeds = RowNoise.draw(len(obs), generator)
    estimated: list[Tensor] = []
    realised: list[Tensor] = []
    for start in range(0, len(obs), _CHUNK):
        rows = slice(start, start + _CHUNK)
        result = planner.plan(obs[rows], budget=budget, noise=seeds.rows(rows))
        estimated.append(result.delta_lcb.double())
        realised.append(
            followed_gain(judge, obs[rows], result.action, horizon=horizon, noise=seeds.rows(rows))
        )
    if not estimated:
        none = torch.empty(0, dtype=torch.float64)
        return _Tried(none, none, episode, 0)
    before, after = torch.cat(estimated), torch.cat(realised).double()
    # What the planner does not prefer to the policy says nothing of the gains that it would act upon.
    rows = (before > 0.0) & before.isfinite() & after.isfinite()
    return _Tried(before[rows], after[rows], episode[rows], int(before.isfinite().sum()))


def _point(
    tried: _Tried, above: Tensor, *, level: float, confidence: float, generator: torch.Generator
) -> GatePoint:
    found = bound_gain(tried.realised[above], tried.episode[above], generator=generator, level=confidence)
    return GatePoint(
        level=max(level, 0.0),
        states=found.states,
        episodes=found.episodes,
        estimated=float(tried.estimated[above].mean()),
        realised=found.mean,
        low=found.low if found.episodes >= _LEAST_EPISODES else None,
    )


def _rank_correlation(first: Float[Tensor, "n"], second: Float[Tensor, "n"]) -> float | None:
    """Spearman's, with ties in the order that they stand in; None where one of them never varies."""
    if len(first) < 3:
        return None
    ranks = torch.stack([values.argsort().argsort().double() for values in (first, second)])
    if bool((torch.stack((first, second)).std(1) == 0).any()):
        return None
    return float(torch.corrcoef(ranks)[0, 1])


class GatedPlanner:
    """A planner whose plans stand only where they gain more than a gate asks for; else the policy acts.

    Args:
        planner: tells `delta_lcb`.
        gate: says which gains are believed.
    """

    def __init__(self, planner: Planner, gate: Gate) -> None:
        self.planner, self.gate = planner, gate

    @property
    def problem(self) -> PlanningProblem:
        """What it plans in."""
        return self.planner.problem

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """See `mbrl.planning.base.Planner`; rows that the gate does not pass act as the policy does."""
        return pass_gate(
            self.planner.plan(obs, budget=budget, noise=noise, hints=hints),
            self.problem.prior.act(obs.to(self.problem.dtype)).clamp(-1.0, 1.0),
            threshold=self.gate.threshold,
            limits=self.problem.limits,
        )


def pass_gate(
    result: PlanResult,
    mode: Float[Tensor, "b act_dim"],
    *,
    threshold: float | None,
    limits: Limits | None = None,
) -> PlanResult:
    """The plan where its gain exceeds the threshold, elsewhere the policy's action and a gain of 0.

    Limits come before gains: where the policy's own action exceeds them further than the plan does, the plan
    stands whatever it gains.

    What else a plan says of itself (its candidates, its value) stays, for people to read.

    Args:
        result: of a planner.
        mode: the policy's action at the same states.
        threshold: return units; None passes nothing.
        limits: of the problem; None for none.
    """
    passes = torch.zeros_like(result.delta_lcb, dtype=torch.bool)
    if threshold is not None:
        passes = result.delta_lcb > threshold  # false where nothing was compared (NaN)
    limited = result.policy_limited
    if limits is not None:
        passes |= limits.excess(*result.policy_limited.T) > limits.excess(*result.limited.T)
    plan = result.plan.clone()
    plan[:, 0] = torch.where(passes[:, None], plan[:, 0], mode)
    return dataclasses.replace(
        result,
        action=torch.where(passes[:, None], result.action, mode),
        plan=plan,
        plan_length=torch.where(passes, result.plan_length, 1),
        delta_lcb=torch.where(passes, result.delta_lcb, 0.0),
        limited=torch.where(passes[:, None], result.limited, limited),
        stats=dataclasses.replace(result.stats, is_fallback=result.stats.is_fallback | ~passes),
    )
