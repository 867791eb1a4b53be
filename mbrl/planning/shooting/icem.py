"""iCEM: CEM with coloured noise, a shrinking population and elites that are remembered.

Source: Pinneri et al. 2020 (arXiv:2008.06389, algorithm 1).

Departures from the paper:
- the mean of the elites is followed, not the best plan (`execute: best` for that): in a learned model the
  best of many plans is the one whose errors flatter most;
- the paper adds kept elites to the population; here they compete without being scored again, since a plan's
  score does not change within a call;
- remembered plans are extended by the policy where the paper draws a fresh last action;
- the policy's plan competes in the first iteration, and returns are discounted and end with a value. That
  value stands for what follows, so plans have 4 steps and not 30 (without one, set `horizon` to 12 or more);
- the maximum of a quadratic model of the scored plans is proposed besides (`refines`).
"""

from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.planning.base import PLANNERS, PlannerEntry
from mbrl.planning.problem.problem import Clock, PlanningProblem
from mbrl.planning.shooting.cem import equal_weights
from mbrl.planning.shooting.coloured import colour_filter
from mbrl.planning.shooting.plans import Plans, ShootingState
from mbrl.planning.shooting.shooting import ShootingConfig, ShootingPlanner


class ICEMConfig(ShootingConfig):
    """The improved cross-entropy method.

    Attributes:
        shrink: the population is divided by this after every iteration, but never below twice the elites.
        keep_share: share of the elites that competes again, in the next iteration and at the next step.
        noise_exponent: of the noise's power spectrum `f^-noise_exponent` along the horizon;
            `spectral_exponent` finds that of logged actions.
    """

    horizon: Annotated[int, Field(ge=1, le=1000)] = 4
    population: Annotated[int, Field(ge=1, le=1_000_000)] = 48
    elites: Annotated[int, Field(ge=1, le=1_000_000)] = 8
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.1
    shrink: Annotated[float, Field(ge=1, le=100)] = 1.25
    keep_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    noise_exponent: Annotated[float, Field(ge=0, le=4)] = 2.0


class ICEM(ShootingPlanner):
    """The iCEM planner; coloured noise, equal weights.

    Args:
        problem: what it plans in.
        config: settings.
        clock: for budgets of milliseconds.
    """

    adds_mean = True

    def __init__(self, problem: PlanningProblem, config: ICEMConfig, clock: Clock | None = None) -> None:
        super().__init__(problem, config, clock)
        self.config = config
        # Once: it depends on the settings alone, and is applied as one matrix product.
        self._filter = colour_filter(config.horizon, config.noise_exponent, dtype=problem.dtype)

    def sizes(self) -> tuple[int, ...]:
        """`N_i = max(2 elites, floor(N_{i-1} / shrink))`."""
        config, sizes = self.config, [self.config.population]
        while len(sizes) < config.iterations:
            # Twice the elites at least, or nearly all plans would
            # be elites and the deviation would not shrink.
            sizes.append(max(2 * config.elites, int(sizes[-1] / config.shrink)))
        return tuple(sizes)

    def colour(self, noise: Float[Tensor, "b n h act_dim"]) -> Float[Tensor, "b n h act_dim"]:
        """Along the horizon."""
        # [h, h] @ [b, n, h, act_dim]: along the horizon, every dimension for itself.
        return self._filter.to(noise.device) @ noise

    def weigh(self, score: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Equal weights."""
        return equal_weights(score)

    def keep(self, state: ShootingState) -> Plans | None:
        """The best elites."""
        count = int(self.config.keep_share * self.config.elites)
        return None if state.elites is None or count == 0 else state.elites.first(count)

    def remember(self, state: ShootingState) -> Float[Tensor, "b m h act_dim"] | None:
        """The best elites."""
        kept = self.keep(state)
        return None if kept is None else kept.actions


PLANNERS.register("icem", "iCEM: CEM with coloured noise, fewer plans, and elites that are remembered.")(
    PlannerEntry(ICEMConfig, ICEM, is_discrete=False, is_continuous=True)
)
