"""A planner whose model lies on a card, for callers whose states lie on the host."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.device import CPU, on_device
from mbrl.planning.base import Budget, Hints, Planner, PlanResult
from mbrl.planning.noise import RowNoise
from mbrl.planning.problem.problem import PlanningProblem


class PlannerOnDevice:
    """Plans on a device and answers on the host; a `Planner`.

    Args:
        problem: on the host, which is what callers see of it.
        device: where its copy lies.
        build: makes the planner of that copy.
    """

    def __init__(
        self, problem: PlanningProblem, device: torch.device, build: Callable[[PlanningProblem], Planner]
    ) -> None:
        self._problem, self._device = problem, device
        self._planner = build(on_device(problem, device))

    @property
    def problem(self) -> PlanningProblem:
        """What it plans in, on the host."""
        return self._problem

    def plan(
        self, obs: Float[Tensor, "b obs_dim"], *, budget: Budget, noise: RowNoise, hints: Hints | None = None
    ) -> PlanResult:
        """See `Planner.plan`; one way there and one way back for all rows."""
        obs, noise, hints = on_device((obs, noise, hints), self._device)
        return on_device(self._planner.plan(obs, budget=budget, noise=noise, hints=hints), CPU)
