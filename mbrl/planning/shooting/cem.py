"""CEM: a Gaussian over plans, refitted to the best of its own draws.

Source: Chua et al. 2018 (PETS, arXiv:1805.12114, section 5).

Departures from PETS:
- draws are clipped to the box, where PETS draws from a Gaussian truncated at two deviations;
- the first mean is what the policy would do (`start: zero` for the middle of the box), and the policy's plan
  competes in the first iteration;
- returns are discounted and end with a value, so that plans have 15 steps and not 30, and all plans meet the
  same particles;
- the maximum of a quadratic model of the scored plans is proposed besides (`refines`).
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.planning.base import PLANNERS, PlannerEntry
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.shooting.particles import Outcome
from mbrl.planning.shooting.plans import Plans, ShootingState
from mbrl.planning.shooting.shooting import ShootingConfig, ShootingPlanner


class CEMConfig(ShootingConfig):
    """The cross-entropy method; too slow for control on a CPU at the sizes of PETS."""

    horizon: Annotated[int, Field(ge=1, le=1000)] = 15
    population: Annotated[int, Field(ge=1, le=1_000_000)] = 400
    iterations: Annotated[int, Field(ge=1, le=1000)] = 5
    elites: Annotated[int, Field(ge=1, le=1_000_000)] = 40
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.1
    particles: Annotated[int | None, Field(ge=1, le=10_000)] = 20
    outcome: Outcome = "sample"


class CEM(ShootingPlanner):
    """The CEM planner; white noise, equal weights.

    Args:
        problem: what it plans in.
        config: settings.
        clock: for budgets of milliseconds.
    """

    def __init__(self, problem: PlanningProblem, config: CEMConfig, clock: Clock | None = None) -> None:
        super().__init__(problem, config, clock)
        self.config = config

    def sizes(self) -> tuple[int, ...]:
        """The population, every time."""
        return (self.config.population,) * self.config.iterations

    def colour(self, noise: Float[Tensor, "b n h act_dim"]) -> Float[Tensor, "b n h act_dim"]:
        """White."""
        return noise

    def weigh(self, score: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Equal weights."""
        # The elites alone decide: CEM refits to a set, whatever their scores are.
        return equal_weights(score)

    def keep(self, state: ShootingState) -> Plans | None:
        """Nothing."""
        del state
        return None

    def remember(self, state: ShootingState) -> Float[Tensor, "b m h act_dim"] | None:
        """Nothing."""
        del state
        return None


def equal_weights(score: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """The same for every finite score; -inf weighs nothing, and rows without a finite score are 0."""
    # Plans in which the model blew up score -inf; 0 / 1 leaves rows of such plans alone without any weight.
    is_finite = score.isfinite().to(score.dtype)
    return is_finite / is_finite.sum(1, keepdim=True).clamp_min(1.0)


PLANNERS.register("cem", "CEM: a Gaussian over plans, refitted to the best of its own draws (PETS).")(
    PlannerEntry(CEMConfig, CEM, is_discrete=False, is_continuous=True)
)
