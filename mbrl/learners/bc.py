"""Behaviour cloning: deterministic, Gaussian, or a mixture of Gaussians.

Source: the common baseline (e.g. the CORL library); %BC of Chen et al. 2021 is this learner on filtered data.

Departures: observations are standardised inside the network (CORL does the same outside); the deterministic
action is `tanh` of the output, so clones never leave the action box; the squared error is averaged
over action dimensions.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import (
    LEARNERS,
    LearnerConfig,
    LearnerContext,
    LearnerState,
    Optimiser,
    Schedule,
)
from mbrl.nets.actors import (
    Actor,
    ActorKind,
    ActorSpec,
    DeterministicActor,
    MixtureActor,
    TanhGaussianActor,
    build_actor,
)
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.losses import squared_action_error

PolicyForm: TypeAlias = Literal["deterministic", "gaussian", "mixture"]
_KINDS: dict[PolicyForm, ActorKind] = {
    "deterministic": "deterministic",
    "gaussian": "tanh_gaussian",
    "mixture": "mixture",
}


class BCConfig(LearnerConfig):
    """Behaviour cloning.

    Attributes:
        form: `deterministic` minimises the squared action error; `gaussian` and `mixture` maximise the
            likelihood.
        hidden: widths of the hidden layers.
        components: mixture components (mixture only).
        learning_rate: Adam rate.
        schedule: course of the rate over the run.
    """

    form: PolicyForm = "deterministic"
    hidden: Hidden = (256, 256)
    components: Annotated[int, Field(ge=1, le=100)] = 5
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    schedule: Schedule = "constant"

    @property
    def reads_rewards(self) -> bool:
        """A clone reads actions alone."""
        return False


@dataclasses.dataclass(slots=True)
class BCState(LearnerState):
    """Network and optimiser."""

    actor: Actor
    optimiser: Optimiser


@LEARNERS.register("bc", "Behaviour cloning: deterministic, Gaussian or mixture policy.")
class BC:
    """The behaviour-cloning learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = BCConfig

    def __init__(self, config: BCConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> BCState:
        """Fresh network and optimiser."""
        config = self.config
        # Other forms have one component, so that an exported
        # Gaussian does not depend on a setting it never reads.
        components = config.components if config.form == "mixture" else 1
        spec = ActorSpec(_KINDS[config.form], self.context.space, config.hidden, components=components)
        # A copy: the policy is exported with statistics of its own, and moves between devices by itself.
        actor = build_actor(spec, copy.deepcopy(self.context.normaliser), generator)
        optimiser = Optimiser(
            actor.net.flat,
            config.learning_rate,
            schedule=config.schedule,
            total_steps=self.context.total_updates,
        )
        return BCState(actor, optimiser)

    def update(self, state: BCState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One gradient step; draws nothing."""
        del generator
        # Nothing but (s, a) is read: logs without rewards or ends can be cloned.
        loss = cloning_loss(state.actor, batch)
        state.optimiser.descend(loss)
        return {"policy/loss": loss.detach()}

    def policy(self, state: BCState) -> Actor:
        """The clone."""
        return state.actor

    def value(self, state: BCState) -> None:
        """A clone estimates no values."""
        del state

    def passes(self, state: BCState) -> tuple[NetworkPass, ...]:
        """The actor is trained."""
        return (NetworkPass(state.actor.net, "parameters"),)


def cloning_loss(actor: Actor, batch: TransitionBatch) -> Tensor:
    """`mean ||pi(s) - a||^2 / d` for a deterministic actor, `-mean log pi(a|s)` for a stochastic one."""
    if isinstance(actor, DeterministicActor):
        # Both in [-1, 1]: otherwise the actuator with the largest range would be most of the error.
        return squared_action_error(actor.scaled_action(batch.observation), actor.scale(batch.action))
    if isinstance(actor, (TanhGaussianActor, MixtureActor)):
        # The squashed density. Actions at a bound, where atanh is infinite, are moved inside by `unsquash`.
        return -actor.log_prob(batch.observation, batch.action).mean()
    raise TypeError(f"no cloning loss for {type(actor).__name__}")
