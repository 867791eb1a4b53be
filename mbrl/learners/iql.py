"""Implicit Q-learning: values of the best logged actions by expectile regression, no other action in them.

Source: Kostrikov et al. 2021 (arXiv:2110.06169), eqs. 5 to 7. The order of an update is that of the reference
code: V, the actor with the new V, Q with the new V, the targets.

Departures:
- observations are standardised inside the networks; the reference code leaves them raw;
- the reference code scales rewards to a return range of 1000: `reward_transform` of the recipe `model_free`;
- weights start as in `torch.nn.Linear`, not orthogonal; no dropout.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import (
    LEARNERS,
    LearnerConfig,
    LearnerContext,
    LearnerState,
    LogStdBounds,
    Optimiser,
    Schedule,
)
from mbrl.learners.critics import regress_critics
from mbrl.nets.actors import (
    Actor,
    ActorKind,
    ActorSpec,
    ClippedGaussianActor,
    DeterministicActor,
    build_actor,
)
from mbrl.nets.critics import CriticEnsemble, StateValue
from mbrl.nets.widths import Hidden
from mbrl.ops.advantage import expectile_loss, exponential_weight
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import td_target

PolicyForm: TypeAlias = Literal["gaussian", "deterministic"]
_KINDS: dict[PolicyForm, ActorKind] = {"gaussian": "clipped_gaussian", "deterministic": "deterministic"}


class IQLConfig(LearnerConfig):
    """Implicit Q-learning.

    Attributes:
        hidden: widths of the hidden layers of actor, critics and value network.
        critics: N; the value network regresses the least of them.
        expectile: tau of the value regression; 0.5 evaluates the behaviour, towards 1 its best actions.
        inverse_temperature: beta of the weights `exp(beta A)`, in 1 / return units; 0 clones.
        max_weight: cap of a weight.
        form: `gaussian` maximises the weighted likelihood with one deviation for all states; `deterministic`
            minimises the weighted squared action error.
        log_std_bounds: limits of the policy's log standard deviation (gaussian only).
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of critics and value network.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    expectile: Annotated[float, Field(gt=0, lt=1)] = 0.7
    inverse_temperature: Annotated[float, Field(ge=0, le=1e4)] = 3.0
    max_weight: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    form: PolicyForm = "gaussian"
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "cosine"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class IQLState(LearnerState):
    """Networks and optimisers."""

    actor: Actor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    state_value: StateValue
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    value_optimiser: Optimiser


@dataclasses.dataclass(frozen=True, slots=True)
class IQLValue:
    """The value network, and the least online critic."""

    state_value: StateValue
    critic: CriticEnsemble

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`V(s)`, an expectile over logged actions rather than the value of the policy's own."""
        return self.state_value(obs)

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a)`."""
        return self.action_values(obs, action).amin(0)

    @torch.no_grad()
    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "c b"]:
        """`Q_i(s, a)` of every critic."""
        return self.critic(obs, self.critic.scale(action))


@LEARNERS.register("iql", "Implicit Q-learning: expectile values and advantage-weighted cloning.")
class IQL:
    """The IQL learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = IQLConfig

    def __init__(self, config: IQLConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> IQLState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        space, hidden = context.space, config.hidden
        normalisers = [copy.deepcopy(context.normaliser) for _ in range(3)]
        spec = ActorSpec(_KINDS[config.form], space, hidden, log_std_bounds=config.log_std_bounds)
        actor = build_actor(spec, normalisers[0], generator)
        critic = CriticEnsemble(config.critics, space, hidden, normalisers[1], generator=generator)
        state_value = StateValue(space, hidden, normalisers[2], generator=generator)
        return IQLState(
            actor=actor,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            state_value=state_value,
            actor_optimiser=Optimiser(
                list(actor.parameters()),
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
            value_optimiser=Optimiser(state_value.net.flat, config.critic_learning_rate),
        )

    def update(self, state: IQLState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of V, the actor, the critics and the targets; draws nothing."""
        del generator
        rows, scaled = len(batch), state.critic.scale(batch.action)
        with torch.no_grad():
            least = state.target_critic(batch.observation, scaled).amin(0)
        metrics = self._update_value(state, batch.observation, least)
        with torch.no_grad():
            values = state.state_value(torch.cat([batch.observation, batch.next_observation]))
        metrics |= self._update_actor(state, batch, least - values[:rows])
        target = td_target(batch.reward, batch.terminated, values[rows:], discount=self.config.discount)
        metrics |= regress_critics(state.critic, state.critic_optimiser, batch, target)
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=self.config.polyak_tau)
        return metrics

    def policy(self, state: IQLState) -> Actor:
        """The actor."""
        return state.actor

    def value(self, state: IQLState) -> IQLValue:
        """The value network and the critics."""
        return IQLValue(state.state_value, state.critic)

    def _update_value(self, state: IQLState, obs: Tensor, least: Tensor) -> dict[str, Tensor]:
        loss = expectile_loss(least - state.state_value(obs), expectile=self.config.expectile)
        state.value_optimiser.descend(loss)
        return {"value/loss": loss.detach()}

    def _update_actor(self, state: IQLState, batch: TransitionBatch, advantage: Tensor) -> dict[str, Tensor]:
        config = self.config
        weight = exponential_weight(
            advantage, inverse_temperature=config.inverse_temperature, max_weight=config.max_weight
        )
        loss = (weight * regression_error(state.actor, batch)).mean()
        state.actor_optimiser.descend(loss)
        return {
            "policy/loss": loss.detach(),
            "policy/weight": weight.mean(),
            "policy/weights_capped": (weight >= config.max_weight).to(weight.dtype).mean(),
        }


def regression_error(actor: Actor, batch: TransitionBatch) -> Float[Tensor, "b"]:
    """`-log pi(a|s)` of a Gaussian actor, `||pi(s) - a||^2` of a deterministic one, scaled actions; `[b]`."""
    if isinstance(actor, ClippedGaussianActor):
        return -actor.log_prob(batch.observation, batch.action)
    if isinstance(actor, DeterministicActor):
        return (actor.scaled_action(batch.observation) - actor.scale(batch.action)).square().sum(-1)
    raise TypeError(f"no regression error for {type(actor).__name__}")
