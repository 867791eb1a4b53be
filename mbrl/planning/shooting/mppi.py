"""MPPI: the mean of the best plans, weighted by the exponential of their value.

Sources: Williams et al. 2017 (arXiv:1707.02342); with elites, plans of the policy and a value at the end as
in TD-MPC2 (Hansen et al. 2024, arXiv:2310.16828).

Departures from TD-MPC2:
- values are divided by their deviation over the elites before the exponential, so that a plan does not depend
  on the unit of the reward (`standardise: false` for raw ones);
- the mean is followed, not an elite drawn by its weight (`execute: sample` for that);
- plans of the policy are scored once and compete in every iteration; the mode's is one of them;
- the maximum of a quadratic model of the scored plans is proposed besides (`refines`; off in the presets of
  papers);
- the policy is rolled out by all members in turn, and uncertainty costs.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias, cast

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.base import PLANNERS, PlannerEntry
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.shooting.plans import Plans, ShootingState
from mbrl.planning.shooting.shooting import ShootingConfig, ShootingPlanner

Preset: TypeAlias = Literal["tdmpc2", "mbop", "mbop-acme", "residual"]

PRESETS: Final[Mapping[Preset, Mapping[str, Any]]] = {
    "tdmpc2": {
        "population": 512,
        "policy_plans": 24,
        "horizon": 3,
        "iterations": 6,
        "elites": 64,
        "standardise": False,
        "inverse_temperature": 0.5,
        "std_start": 2.0,
        "std_max": 2.0,
        "start": "zero",
        "execute": "sample",
        "refines": False,
    },
    "mbop": {
        "population": 100,
        "policy_plans": 100,
        "elites": 100,
        "horizon": 10,
        "iterations": 1,
        "policy_std": 0.2,
        "policy_mix": 0.2,
        "refines": False,
    },
    "mbop-acme": {
        "population": 1000,
        "policy_plans": 1000,
        "elites": 1000,
        "horizon": 15,
        "iterations": 1,
        "policy_std": 0.8,
        "policy_mix": 0.2,
        "refines": False,
    },
    "residual": {
        "plans": "residuals",
        "population": 106,
        "iterations": 8,
        "elites": 16,
        "std_start": 0.15,
        "std_min": 0.005,
    },
}
"""TD-MPC2's settings; plans of a perturbed policy only (Argenson & Dulac-Arnold 2021, and as in acme); small
residuals to a policy, in more and smaller iterations for the same 736 plans."""


class MPPIConfig(ShootingConfig):
    """Model predictive path integral control.

    Attributes:
        preset: named settings, which those given here overrule.
        inverse_temperature: of the weights `exp(inverse_temperature (v - v_max) / scale)`.
        standardise: scale is the deviation of the elites' scores; false takes 1, so return units.
        scale_min: floor of that deviation, as a share of the spread of the data's returns.
        control_cost: weight of `mean' S^-1 (a - mean)`, S the diagonal of variances, that is subtracted from
            a score when plans are ranked (Williams et al. 2017), return units.
    """

    preset: Preset | None = None
    std_min: Annotated[float, Field(ge=0, le=10)] = 0.05
    policy_plans: Annotated[int, Field(ge=1, le=1_000_000)] = 16
    inverse_temperature: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    standardise: bool = True
    scale_min: Annotated[float, Field(gt=0, le=1)] = 1e-4
    control_cost: Annotated[float, Field(ge=0, le=1e6)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = cast(Mapping[str, Any], values)
        preset = given.get("preset", cls.model_fields["preset"].default)
        if preset not in list(PRESETS):  # none, or one that the field's own check refuses by name
            return given
        return {**PRESETS[preset], **given}


class MBOPConfig(MPPIConfig):
    """Plans of a perturbed policy only, weighted as MPPI does; the settings are those of `preset`."""

    preset: Preset | None = "mbop"


class MPPI(ShootingPlanner):
    """The MPPI planner; white noise.

    Args:
        problem: what it plans in.
        config: settings.
        clock: for budgets of milliseconds.
    """

    elite_share = 1.0

    def __init__(self, problem: PlanningProblem, config: MPPIConfig, clock: Clock | None = None) -> None:
        super().__init__(problem, config, clock)
        # The variance may shrink to its floor.
        if config.control_cost > 0.0 and config.std_min == 0.0:
            raise ConfigError("control_cost divides by the variance of the draws: set std_min above 0.")
        self.config = config
        self.control_cost = config.control_cost

    def sizes(self) -> tuple[int, ...]:
        """The population, less the policy's plans once these are scored."""
        # The policy's plans keep their scores and compete again, so each iteration has `population` of them.
        fresh = max(1, self.config.population - self.config.policy_plans)
        return (self.config.population, *[fresh] * (self.config.iterations - 1))

    def colour(self, noise: Float[Tensor, "b n h act_dim"]) -> Float[Tensor, "b n h act_dim"]:
        """White."""
        return noise

    def weigh(self, score: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """`exp(inverse_temperature (v - v_max) / max(sd, floor))`, sd over the finite elites, normalised."""
        # A share of the spread of returns, so that scaling all rewards scales the floor with them.
        floor = self.config.scale_min * self.problem.value_scale
        return exponential_weights(
            score,
            inverse_temperature=self.config.inverse_temperature,
            floor=floor if self.config.standardise else None,
        )

    def keep(self, state: ShootingState) -> Plans | None:
        """The policy's plans."""
        return state.injected

    def remember(self, state: ShootingState) -> Float[Tensor, "b m h act_dim"] | None:
        """Nothing."""
        del state
        return None


def exponential_weights(
    score: Float[Tensor, "b k"], *, inverse_temperature: float, floor: float | None
) -> Float[Tensor, "b k"]:
    """Softmax of scores over their deviation; -inf weighs nothing, and rows without a finite score are 0.

    The best score is subtracted before anything else, so that scores of any size neither overflow nor drown
    their differences.

    Args:
        score: `[b, k]`, finite or -inf.
        inverse_temperature: > 0.
        floor: of the deviation, return units; None divides by 1.
    """
    # 1. How far each plan is behind the best one; the best has weight exp(0) whatever the scale.
    is_finite = score.isfinite()
    behind = torch.where(is_finite, score - score.amax(1, keepdim=True), 0.0)
    scale = torch.ones_like(behind[:, :1])
    # 2. In deviations of the elites' own scores, so that the unit of the reward cancels.
    if floor is not None:
        count = is_finite.sum(1, keepdim=True).clamp_min(1)
        mean = behind.sum(1, keepdim=True) / count
        square = torch.where(is_finite, (behind - mean).square(), 0.0)
        scale = (square.sum(1, keepdim=True) / count).sqrt().clamp_min(floor)
    # 3. The exponential, normalised.
    weight = torch.where(is_finite, (inverse_temperature * behind / scale).exp(), 0.0)
    return weight / weight.sum(1, keepdim=True).clamp_min(1.0)  # the best weighs 1


PLANNERS.register("mppi", "MPPI: the mean of the best plans, weighted by the exponential of their value.")(
    PlannerEntry(MPPIConfig, MPPI, is_discrete=False, is_continuous=True)
)
PLANNERS.register("mbop", "MBOP: plans of a perturbed policy, weighted as MPPI does.")(
    PlannerEntry(MBOPConfig, MPPI, is_discrete=False, is_continuous=True)
)
