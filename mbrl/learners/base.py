"""What every learner file supplies: a config, a learner, an entry in the registry."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mbrl.core.protocols import Checkpointable, Learner
from mbrl.core.registry import Registry
from mbrl.core.types import SpaceSpec, StateDict
from mbrl.nets.discriminator import Discriminator
from mbrl.nets.moments import load_moments
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.passes import NetworkPass

Schedule: TypeAlias = Literal["constant", "cosine"]

BatchKind: TypeAlias = Literal["transitions", "on_policy", "demonstrations", "preferences"]
"""What a learner's batches are: `TransitionBatch` of whoever acted, `OnPolicyBatch` of its own policy, or
`DemonstrationBatch` of whoever acted with an expert's steps beside them."""

_LogStd: TypeAlias = Annotated[float, Field(ge=-20, le=10)]


def _check_order(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] >= bounds[1]:
        raise ValueError(f"must be low < high, got {bounds}")
    return bounds


LogStdBounds: TypeAlias = Annotated[tuple[_LogStd, _LogStd], AfterValidator(_check_order)]
"""Limits of a policy's log standard deviation, in order."""


class LearnerConfig(BaseModel):
    """What all learners share.

    Whatever a learner's settings measure in rewards or returns is in the unit in which it sees rewards: their
    deviation, unless the recipe's `reward_transform` says otherwise.

    Attributes:
        discount: gamma of the Bellman target.
        batch_size: transitions in an update.
        normalise_observations: standardise observations inside the networks, by statistics of the training
            data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    acts_on_choices: ClassVar[bool] = False
    """Whether actions are finitely many choices, one-hot; False for actions in a box."""

    discount: Annotated[float, Field(ge=0, lt=1)] = 0.99
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    normalise_observations: bool = True

    @property
    def depends_on_length(self) -> bool:
        """Whether an update depends on how many there will be, as learning rates that fall to the end do.

        If not, a finished training can be made longer. Fields whose names end in `schedule` are looked at; a
        learner that reads `LearnerContext.total_updates` otherwise says so here.
        """
        # By the name of the field: a learner that adds a schedule of its own is found without being asked.
        schedules = (name for name in type(self).model_fields if name.endswith("schedule"))
        return any(getattr(self, name) != "constant" for name in schedules)

    @property
    def reads_rewards(self) -> bool:
        """Whether updates read rewards; a learner that does not can be given a log without them."""
        return True

    @property
    def batch_kind(self) -> BatchKind:
        """Which batches an update reads; a recipe refuses a learner whose batches it does not make."""
        return "transitions"

    @property
    def summed_steps(self) -> int:
        """Logged rewards that a row of a batch sums up, discounted; 1 for single steps."""
        return 1

    @property
    def is_conservative(self) -> bool:
        """Whether logged actions are valued above imagined ones on purpose; COMBO needs a learner of that."""
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class LearnerContext:
    """What a learner may know besides its config.

    Attributes:
        space: sizes and bounds of the task.
        normaliser: of observations, fitted on the training episodes; the identity to leave them raw.
        total_updates: length of the run, for learning-rate schedules.
    """

    space: SpaceSpec
    normaliser: Normaliser
    total_updates: int


class LearnerState:
    """Base of a learner's state: a dataclass of networks, optimisers, tensors and numbers.

    `state_dict` walks the dataclass fields, so that nothing can be forgotten in a checkpoint.
    """

    def state_dict(self) -> StateDict:
        """Every field, by name."""
        return {name: _snapshot(getattr(self, name)) for name in _field_names(self)}

    @torch.no_grad()
    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`; tensors are filled in place.

        Raises:
            ValueError: a tensor is of another shape, or a value of another type.
        """
        for name in _field_names(self):
            value, saved = getattr(self, name), state[name]
            if isinstance(value, Tensor):
                if not isinstance(saved, Tensor) or saved.shape != value.shape:
                    raise ValueError(f"{name} is not of the shape {list(value.shape)}")
                # Into the tensor that is there: optimisers and autograd hold on to it, not to a new one.
                value.copy_(saved)
            elif isinstance(value, Checkpointable):
                # An optimiser adopts the tensors it is given, and would go on to change them in place.
                value.load_state_dict(copy.deepcopy(saved))
            # By type, not `isinstance`: True is an int, and would pass for a count.
            elif value is not None and saved is not None and type(saved) is not type(value):
                raise ValueError(f"{name} is {saved!r}, and no {type(value).__name__}")
            else:
                setattr(self, name, saved)


def _field_names(state: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(state)]


def _snapshot(value: Any) -> Any:
    """A copy: the state dicts of modules and optimisers are views that further updates would change."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.deepcopy(value.state_dict()) if isinstance(value, Checkpointable) else value


@runtime_checkable
class LearnerEntry(Protocol):
    """A registered learner: its config class and a builder."""

    Config: type[LearnerConfig]

    def __call__(self, config: Any, context: LearnerContext) -> Learner[Any]:
        """Builds the learner."""
        ...


@runtime_checkable
class StatesPasses(Protocol):
    """A learner that says what its update computes, so that its speed can be held against the machine's."""

    def passes(self, state: Any) -> tuple[NetworkPass, ...]:
        """Passes that an update cannot do without, whatever this implementation does besides."""
        ...


@runtime_checkable
class PhasedLearner(Protocol):
    """A learner whose updates differ by something that Python counts, or one that wraps another."""

    def phase(self, state: Any) -> int | None:
        """What the next update does: updates of one phase run the same operations; None for nobody knows."""
        ...


def find_phase(learner: Learner[Any], state: Any) -> int | None:
    """Which of its kinds of updates a learner makes next, 0 where it has one; None where nobody knows.

    A state without whole numbers leaves nothing to tell updates apart by; one that holds another state does.
    """
    if isinstance(learner, PhasedLearner):
        return learner.phase(state)
    if not dataclasses.is_dataclass(state):
        return None
    values = [getattr(state, name) for name in _field_names(state)]
    return None if any(isinstance(one, int) or dataclasses.is_dataclass(one) for one in values) else 0


@runtime_checkable
class LearnsReward(Protocol):
    """A learner that recovers a reward besides its policy, which is kept with the run."""

    def reward_model(self, state: Any) -> Discriminator:
        """The reward as it stands; a view on `state`."""
        ...


LEARNERS: Registry[LearnerEntry] = Registry(
    "learner",
    "mbrl.learners",
    group="mbrl.learners",
    spelling='mbrl.registry("learners")',
    needs=("Config", "init", "update", "policy", "value"),
)


class Optimiser:
    """Adam on one parameter tensor, or a few: a single fused call, at a rate that follows a schedule.

    Args:
        parameter: what is trained, such as the flat parameters of a `StackedMLP`; or a list of these.
        learning_rate: of the first step.
        schedule: `constant`, or `cosine`: `learning_rate (1 + cos(pi step / total_steps)) / 2`.
        total_steps: steps after which a cosine has fallen to 0.
    """

    def __init__(
        self,
        parameter: nn.Parameter | Sequence[nn.Parameter],
        learning_rate: float,
        *,
        schedule: Schedule = "constant",
        total_steps: int = 1,
    ) -> None:
        self._parameters = [parameter] if isinstance(parameter, nn.Parameter) else list(parameter)
        # On a card the rate is a tensor as well: a captured step reads it anew with every replay.
        device = self._parameters[0].device
        self._rate = torch.tensor(learning_rate, device=device) if device.type == "cuda" else None
        # Fused: moments and parameters in one call and one pass over their memory.
        self._adam = torch.optim.Adam(
            self._parameters,
            lr=learning_rate if self._rate is None else self._rate,
            fused=True,
            capturable=self._rate is not None,
        )
        self._base, self._schedule, self._total = learning_rate, schedule, total_steps
        self._step = 0

    @property
    def steps(self) -> int:
        """Steps that were made."""
        return self._step

    @steps.setter
    def steps(self, count: int) -> None:
        self._step = count

    @property
    def learning_rate(self) -> float:
        """Rate of the next step."""
        if self._schedule == "constant":
            return self._base
        # At most 1: beyond its last step a cosine would rise again.
        return self._base * 0.5 * (1 + math.cos(math.pi * min(self._step / self._total, 1.0)))

    def descend(self, loss: Tensor) -> None:
        """One step down the gradient of `loss`."""
        if self._rate is None or not torch.cuda.is_current_stream_capturing():
            self.set_rate()
        for parameter in self._parameters:
            parameter.grad = None  # what `zero_grad` does, which takes thirty times as long
        loss.backward()
        self._adam.step()
        self._step += 1

    def set_rate(self) -> None:
        """Puts the rate of the next step where that step reads it."""
        # The rate is a function of the step count alone, so a checkpoint needs no state of a scheduler.
        if self._rate is None:
            self._adam.param_groups[0]["lr"] = self.learning_rate
        else:
            self._rate.fill_(self.learning_rate)

    def state_dict(self) -> StateDict:
        """Moments and the step count."""
        return {"adam": self._adam.state_dict(), "step": self._step}

    def load_state_dict(self, state: StateDict) -> None:
        """Inverse of `state_dict`.

        Raises:
            ValueError: the moments are not those of these parameters.
        """
        # Checked before anything is loaded: a step of True or -1 would give a rate, and a wrong one.
        if type(state["step"]) is not int or state["step"] < 0:
            raise ValueError(f"an optimiser is at step {state['step']!r}")
        load_moments(self._adam, state["adam"])
        if self._rate is not None:  # which loading has copied
            self._adam.param_groups[0]["lr"] = self._rate
        self._step = state["step"]
