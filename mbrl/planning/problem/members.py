"""Some members of an ensemble as a step of their own: those that plan, and those that judge the plans."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.planning.problem.problem import PlanningProblem, StepFn, StepOut


@dataclasses.dataclass(frozen=True, slots=True)
class SomeMembers:
    """A `StepFn` of some members of another; uncertainty stays that of all members together.

    Attributes:
        step: of all members.
        members: which of them, at least one.
    """

    step: StepFn
    members: tuple[int, ...]

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        return len(self.members)

    def __call__(
        self,
        obs: Float[Tensor, "r obs_dim"],
        action: Float[Tensor, "r act_dim"],
        *,
        member: Int[Tensor, "r"] | None = None,
        noise: Float[Tensor, "r outcome"] | None = None,
    ) -> StepOut:
        """See `StepFn`; member k is the k-th of these."""
        index = torch.tensor(self.members, device=obs.device)
        if member is not None:
            return self.step(obs, action, member=index[member], noise=noise)
        out = self.step(obs, action, noise=noise)
        broken, cost = (None if part is None else part[index] for part in (out.broken, out.cost))
        following, reward, ended = (part[index] for part in out[:3])
        return StepOut(following, reward, ended, out.uncertainty, broken, cost)


def split_members(problem: PlanningProblem) -> tuple[PlanningProblem, PlanningProblem]:
    """The problem in the first two thirds of its members, and in the others, which judge plans of the first.

    Raises:
        ConfigError: fewer than three members.
    """
    count = problem.step.ensemble_size
    if count < 3:
        raise ConfigError(
            f"A gate by held-apart members needs three of them or more, and the model has {count}. "
            "Remedy: raise dynamics.elites, or set the gate to none."
        )
    planning = (2 * count + 2) // 3
    first, others = tuple(range(planning)), tuple(range(planning, count))
    return (
        dataclasses.replace(problem, step=SomeMembers(problem.step, first)),
        dataclasses.replace(problem, step=SomeMembers(problem.step, others)),
    )
