"""Settings that all shooting planners share."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from mbrl.planning.base import PlannerConfig
from mbrl.planning.shooting.particles import Outcome, Transition

PlanEntries: TypeAlias = Literal["actions", "residuals"]
Start: TypeAlias = Literal["policy", "zero"]
Execute: TypeAlias = Literal["mean", "best", "sample"]


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
        plans: of `actions` that are followed blindly, or of `residuals` that are added to what the policy
            does in the states that are reached; deviations are of these.
        start: where the first mean comes from without a warm plan: what the policy would do, or 0, which
            among residuals is the same.
        policy_plans: plans of the policy among the first candidates: its mode's, then draws.
        policy_std: deviation of those draws around the mode, half-range units; null draws from the policy.
        policy_mix: share of the warm plan in those draws.
        transition: `ts_inf`: a particle keeps its member; `ts1`: a member is drawn at each step; `mean`: the
            mean over members.
        particles: futures of each plan; null takes as many as there are members, one each.
        outcome: a member's `mean`, or a `sample` of its Gaussian.
        execute: the `mean` of the elites, unless it is worse than they are (then their best), the `best`
            plan seen, or an elite drawn by its weight (to explore).
        refines: propose the maximum of a quadratic model of the scored plans, wherever there are enough for
            one: 1.1 for each of `(n + 1) (n + 2) / 2` coefficients, n the horizon times the action's size, up
            to 53.
    """

    horizon: Annotated[int, Field(ge=1, le=1000)] = 5
    population: Annotated[int, Field(ge=1, le=1_000_000)] = 256
    iterations: Annotated[int, Field(ge=1, le=1000)] = 3
    elites: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    std_start: Annotated[float, Field(gt=0, le=10)] = 0.5
    std_min: Annotated[float, Field(ge=0, le=10)] = 0.0
    std_max: Annotated[float, Field(gt=0, le=10)] = 0.5
    plans: PlanEntries = "actions"
    start: Start = "policy"
    policy_plans: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    policy_std: Annotated[float | None, Field(ge=0, le=10)] = None
    policy_mix: Annotated[float, Field(ge=0, le=1)] = 0.0
    transition: Transition = "ts_inf"
    particles: Annotated[int | None, Field(ge=1, le=10_000)] = None
    outcome: Outcome = "mean"
    execute: Execute = "mean"
    refines: bool = True
