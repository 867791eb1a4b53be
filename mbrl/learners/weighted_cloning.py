"""What learners share whose policy clones logged actions by weights of their advantage. No learner by itself.

Source: advantage-weighted regression, Peng et al. 2019 (arXiv:1910.00177), with critics in the place of
returns.
"""

import abc
import copy
import dataclasses
from typing import Annotated, Any, Generic, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import TransitionBatch
from mbrl.learners.base import (
    LearnerConfig,
    LearnerContext,
    LearnerState,
    LogStdBounds,
    Optimiser,
    Schedule,
)
from mbrl.nets.actors import (
    Actor,
    ActorKind,
    ActorSpec,
    ClippedGaussianActor,
    DeterministicActor,
    build_actor,
)
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.widths import Hidden
from mbrl.ops.polyak import polyak_update


class WeightedCloningConfig(LearnerConfig):
    """An actor that clones, N critics, and how an advantage becomes a weight.

    Attributes:
        hidden: widths of the hidden layers of all networks.
        critics: N; wherever one value is needed, it is the least of them.
        inverse_temperature: beta of the weights `exp(beta A)`, in 1 / return units; 0 clones.
        max_weight: cap of a weight.
        log_std_bounds: limits of the policy's log standard deviation, one for all states.
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    inverse_temperature: Annotated[float, Field(ge=0, le=1e4)] = 3.0
    max_weight: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


ActorT = TypeVar("ActorT", bound=Actor)


@dataclasses.dataclass(slots=True)
class WeightedCloningState(LearnerState, Generic[ActorT]):
    """Networks and optimisers."""

    actor: ActorT
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser


ConfigT = TypeVar("ConfigT", bound=WeightedCloningConfig)
StateT = TypeVar("StateT", bound=WeightedCloningState[Any])


class WeightedCloning(abc.ABC, Generic[ConfigT, StateT]):
    """The parts and the steps; a learner says what its critics regress and what the weights are.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    def __init__(self, config: ConfigT, context: LearnerContext) -> None:
        self.config, self.context = config, context

    @abc.abstractmethod
    def init(self, generator: torch.Generator) -> StateT:
        """Fresh networks and optimisers."""

    def policy(self, state: StateT) -> Actor:
        """The actor."""
        return state.actor

    def build_parts(self, kind: ActorKind, generator: torch.Generator) -> dict[str, Any]:
        """The fields of a `WeightedCloningState` with an actor of that kind."""
        config, context = self.config, self.context
        spec = ActorSpec(kind, context.space, config.hidden, log_std_bounds=config.log_std_bounds)
        actor = build_actor(spec, copy.deepcopy(context.normaliser), generator)
        critic = CriticEnsemble(
            config.critics,
            context.space,
            config.hidden,
            copy.deepcopy(context.normaliser),
            generator=generator,
        )
        return {
            "actor": actor,
            "critic": critic,
            "target_critic": copy.deepcopy(critic).requires_grad_(requires_grad=False),
            "actor_optimiser": Optimiser(
                # All of them: a Gaussian's deviation is a parameter beside the flat ones of its network.
                list(actor.parameters()),
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            "critic_optimiser": Optimiser(critic.net.flat, config.critic_learning_rate),
        }

    def update_actor(
        self, state: StateT, batch: TransitionBatch, weight: Float[Tensor, "b"]
    ) -> dict[str, Tensor]:
        """One step down the weighted error of cloning, `mean weight * regression_error`; returns metrics."""
        # A weighted likelihood of logged actions: no gradient passes through Q, so the actor cannot
        # run away to actions that the critics overrate.
        loss = (weight * regression_error(state.actor, batch)).mean()
        state.actor_optimiser.descend(loss)
        return {"policy/loss": loss.detach()}

    def update_targets(self, state: StateT) -> None:
        """Moves the target critics towards the critics."""
        tau = self.config.polyak_tau
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=tau)


def regression_error(actor: Actor, batch: TransitionBatch) -> Float[Tensor, "b"]:
    """`-log pi(a|s)` of a Gaussian actor, `||pi(s) - a||^2` of a deterministic one, scaled actions; `[b]`.

    Raises:
        TypeError: an actor of another kind.
    """
    if isinstance(actor, ClippedGaussianActor):
        # The density before clipping, where an action at a bound is an ordinary point.
        return -actor.log_prob(batch.observation, batch.action)
    if isinstance(actor, DeterministicActor):
        # Summed over dimensions like a log-density, so that weights mean the same for both forms.
        return (actor.scaled_action(batch.observation) - actor.scale(batch.action)).square().sum(-1)
    raise TypeError(f"no regression error for {type(actor).__name__}")
