"""Advantage-weighted actor-critic: cloning with weights `exp(beta A)`, A from critics of the policy itself.

Sources: Nair et al. 2020 (arXiv:2006.09359), eqs. 4 and 8; the clipped exponential weights are those of
advantage-weighted regression, Peng et al. 2019 (arXiv:1910.00177), and of CORL.

Departures:
- `tanh` bounds the mean of the policy; CORL leaves it free and clips actions;
- observations are standardised inside the networks (CORL does the same outside).
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
from mbrl.learners.critics import PolicyValue, regress_critics
from mbrl.nets.actors import ActorSpec, ClippedGaussianActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.widths import Hidden
from mbrl.ops.advantage import exponential_weight, softmax_weight
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import td_target

WeightForm: TypeAlias = Literal["exponential", "softmax"]


class AWACConfig(LearnerConfig):
    """Advantage-weighted actor-critic.

    Attributes:
        hidden: widths of the hidden layers of actor and critics.
        critics: N; target and advantage take the least of them.
        inverse_temperature: beta of the weights, in 1 / return units; 0 clones. Its inverse is the lambda of
            the paper.
        weights: `exponential` is `min(exp(beta A), max_weight)`; `softmax` normalises over the batch.
        max_weight: cap of a weight (exponential only).
        value_samples: actions of the policy over which V(s) in the advantage is averaged.
        log_std_bounds: limits of the policy's log standard deviation, one for all states.
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    inverse_temperature: Annotated[float, Field(ge=0, le=1e4)] = 3.0
    weights: WeightForm = "exponential"
    max_weight: Annotated[float, Field(gt=0, le=1e6)] = 100.0
    value_samples: Annotated[int, Field(ge=1, le=1000)] = 1
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class AWACState(LearnerState):
    """Networks and optimisers."""

    actor: ClippedGaussianActor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser


@LEARNERS.register("awac", "Advantage-weighted actor-critic: cloning weighted by the policy's own critics.")
class AWAC:
    """The AWAC learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = AWACConfig

    def __init__(self, config: AWACConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> AWACState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        spec = ActorSpec(
            "clipped_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds
        )
        actor = ClippedGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        critic = CriticEnsemble(
            config.critics,
            context.space,
            config.hidden,
            copy.deepcopy(context.normaliser),
            generator=generator,
        )
        return AWACState(
            actor=actor,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            actor_optimiser=Optimiser(
                list(actor.parameters()),
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
        )

    def update(self, state: AWACState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, of the actor with the new critics, and of the targets."""
        count = 1 + self.config.value_samples
        noise = torch.randn(count, *batch.action.shape, generator=generator, device=generator.device)
        scaled = state.critic.scale(batch.action)
        target = self.critic_target(state, batch, noise[0])
        metrics = regress_critics(state.critic, state.critic_optimiser, batch, target)
        advantage = self.advantage(state, batch.observation, scaled, noise=noise[1:])
        metrics |= self._update_actor(state, batch, advantage)
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=self.config.polyak_tau)
        return metrics

    def policy(self, state: AWACState) -> ClippedGaussianActor:
        """The actor."""
        return state.actor

    def value(self, state: AWACState) -> PolicyValue:
        """The critics at the actor's action."""
        return PolicyValue(state.actor, state.critic)

    @torch.no_grad()
    def critic_target(self, state: AWACState, batch: TransitionBatch, noise: Tensor) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) min_i Q_i(s', a')`, `a' ~ pi(s')`, target critics, no gradients."""
        next_action = state.actor.scaled_sample(batch.next_observation, noise)
        next_value = state.target_critic(batch.next_observation, next_action).amin(0)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    @torch.no_grad()
    def advantage(
        self, state: AWACState, obs: Tensor, scaled_action: Tensor, *, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a) - mean_j min_i Q_i(s, a_j)`, `a_j ~ pi(s)` from k rows of noise, no gradients."""
        own = state.critic.at_actions(obs, state.actor.scaled_sample(obs, noise))
        return state.critic(obs, scaled_action).amin(0) - own.amin(0).mean(0)

    def _update_actor(self, state: AWACState, batch: TransitionBatch, advantage: Tensor) -> dict[str, Tensor]:
        config, beta = self.config, self.config.inverse_temperature
        if config.weights == "softmax":
            weight = softmax_weight(advantage, inverse_temperature=beta)
        else:
            weight = exponential_weight(advantage, inverse_temperature=beta, max_weight=config.max_weight)
        loss = -(weight * state.actor.log_prob(batch.observation, batch.action)).mean()
        state.actor_optimiser.descend(loss)
        return {"policy/loss": loss.detach(), "policy/weight_max": weight.max()}
