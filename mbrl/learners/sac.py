"""Soft actor-critic with N critics (SAC, SAC-N, EDAC).

Sources: Haarnoja et al. 2018 (arXiv:1812.05905); An et al. 2021 (arXiv:2110.01548) for N critics and their
diversity.

Departures from the papers:
- observations are standardised inside the networks (switch: `normalise_observations`);
- LayerNorm in the critics and a backup without entropy are options;
- the log standard deviation is clipped to [-5, 2] as in the EDAC code; the SAC code uses [-20, 2];
- the temperature may be capped, as OfflineRL-Kit does at 1.
"""

import copy
import dataclasses
import math
from typing import Annotated, ClassVar, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import (
    LEARNERS,
    LearnerConfig,
    LearnerContext,
    LearnerState,
    Optimiser,
    Schedule,
)
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.widths import Hidden
from mbrl.ops.losses import critic_diversity, critic_loss, soft_policy_loss, temperature_loss
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import soft_next_value, td_target

LogStd: TypeAlias = Annotated[float, Field(ge=-20, le=10)]


class SACConfig(LearnerConfig):
    """Soft actor-critic.

    Attributes:
        hidden: widths of the hidden layers of actor and critics.
        critics: N; the target and the policy loss take the minimum over all of them.
        critic_layer_norm: LayerNorm in the critics.
        diversity_coef: eta of EDAC; 0 is plain SAC-N. Needs at least two critics.
        actor_learning_rate: Adam rate of the actor.
        actor_schedule: course of the actor's rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
        entropy_coef: the temperature at the start.
        entropy_coef_learning_rate: Adam rate of the log temperature; 0 keeps the temperature fixed.
        max_entropy_coef: cap of the temperature; None for no cap.
        target_entropy: nats; None is minus the number of action dimensions.
        has_entropy_backup: include the entropy in the Bellman target; False is the deterministic backup.
        log_std_bounds: limits of the policy's log standard deviation.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    critic_layer_norm: bool = False
    diversity_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.0
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    entropy_coef: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    entropy_coef_learning_rate: Annotated[float, Field(ge=0, le=1)] = 3e-4
    max_entropy_coef: Annotated[float | None, Field(gt=0, le=1e4)] = None
    target_entropy: Annotated[float | None, Field(ge=-1e4, le=1e4)] = None
    has_entropy_backup: bool = True
    log_std_bounds: tuple[LogStd, LogStd] = (-5.0, 2.0)

    @model_validator(mode="after")
    def _check_consistent(self) -> "SACConfig":
        if self.diversity_coef > 0 and self.critics < 2:
            raise ValueError("diversity_coef > 0 needs critics >= 2")
        if self.max_entropy_coef is not None and self.entropy_coef > self.max_entropy_coef:
            raise ValueError(
                f"entropy_coef={self.entropy_coef} starts above max_entropy_coef={self.max_entropy_coef}"
            )
        if self.log_std_bounds[0] >= self.log_std_bounds[1]:
            raise ValueError(f"log_std_bounds must be low < high, got {self.log_std_bounds}")
        return self


@dataclasses.dataclass(slots=True)
class SACState(LearnerState):
    """Networks and optimisers."""

    actor: TanhGaussianActor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    log_entropy_coef: nn.Parameter
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    entropy_optimiser: Optimiser


@dataclasses.dataclass(frozen=True, slots=True)
class SACValue:
    """Values of a soft actor-critic: the least critic at the policy's deterministic action."""

    actor: TanhGaussianActor
    critic: CriticEnsemble

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, tanh(mean(s)))`."""
        return self.action_value(obs, self.actor.act(obs))

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a)`."""
        return self.critic(obs, self.critic.scale(action)).amin(0)


@LEARNERS.register("sac", "Soft actor-critic with N critics; options make it SAC-N and EDAC.")
class SAC:
    """The SAC learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = SACConfig

    def __init__(self, config: SACConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context
        self.target_entropy = (
            -float(context.space.act_dim) if config.target_entropy is None else config.target_entropy
        )

    def init(self, generator: torch.Generator) -> SACState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        spec = ActorSpec("tanh_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds)
        actor = TanhGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        critic = CriticEnsemble(
            config.critics,
            context.space,
            config.hidden,
            copy.deepcopy(context.normaliser),
            generator=generator,
            layer_norm=config.critic_layer_norm,
        )
        log_entropy_coef = nn.Parameter(torch.tensor(math.log(config.entropy_coef)))
        return SACState(
            actor=actor,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            log_entropy_coef=log_entropy_coef,
            actor_optimiser=Optimiser(
                actor.net.flat,
                config.actor_learning_rate,
                schedule=config.actor_schedule,
                total_steps=context.total_updates,
            ),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
            entropy_optimiser=Optimiser(log_entropy_coef, config.entropy_coef_learning_rate),
        )

    def update(self, state: SACState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, the actor, the temperature and the targets."""
        config = self.config
        noise = torch.randn(2, *batch.action.shape, generator=generator, device=generator.device)
        entropy_coef = state.log_entropy_coef.detach().exp()
        metrics = self._update_critic(state, batch, noise[0], entropy_coef)
        log_prob, actor_metrics = self._update_actor(state, batch.observation, noise[1], entropy_coef)
        self._update_entropy_coef(state, log_prob)
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=config.polyak_tau)
        return {**metrics, **actor_metrics, "policy/entropy_coef": entropy_coef}

    def policy(self, state: SACState) -> TanhGaussianActor:
        """The actor."""
        return state.actor

    def value(self, state: SACState) -> SACValue:
        """The critics at the actor's action."""
        return SACValue(state.actor, state.critic)

    def critic_target(
        self, state: SACState, batch: TransitionBatch, noise: Tensor, entropy_coef: Tensor
    ) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) [min_i Q_i(s', a') - b alpha log pi(a'|s')]`, without gradients."""
        with torch.no_grad():
            next_action, next_log_prob = state.actor.sample_with_log_prob(batch.next_observation, noise)
            next_value = soft_next_value(
                state.target_critic(batch.next_observation, next_action),
                next_log_prob,
                entropy_coef=entropy_coef,
                has_entropy=self.config.has_entropy_backup,
            )
            return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    def _update_critic(
        self, state: SACState, batch: TransitionBatch, noise: Tensor, entropy_coef: Tensor
    ) -> dict[str, Tensor]:
        target = self.critic_target(state, batch, noise, entropy_coef)
        action = state.critic.scale(batch.action)
        values = state.critic(batch.observation, action)
        loss = critic_loss(values, target)
        metrics = {"critic/loss": loss.detach()}
        if self.config.diversity_coef > 0:
            diversity = critic_diversity(state.critic.action_gradients(batch.observation, action))
            metrics["critic/diversity"] = diversity.detach()
            loss = loss + self.config.diversity_coef * diversity
        state.critic_optimiser.descend(loss)
        values = values.detach()
        return metrics | {
            "critic/value": values.mean(),
            "critic/value_max": values.max(),
            "critic/disagreement": values.std(0, correction=0).mean(),
        }

    def _update_actor(
        self, state: SACState, obs: Tensor, noise: Tensor, entropy_coef: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        action, log_prob = state.actor.sample_with_log_prob(obs, noise)
        values = state.critic(obs, action, frozen=True)
        loss = soft_policy_loss(log_prob, values, entropy_coef=entropy_coef)
        state.actor_optimiser.descend(loss)
        log_prob = log_prob.detach()
        return log_prob, {"policy/loss": loss.detach(), "policy/entropy": -log_prob.mean()}

    def _update_entropy_coef(self, state: SACState, log_prob: Tensor) -> None:
        if self.config.entropy_coef_learning_rate == 0:
            return
        loss = temperature_loss(state.log_entropy_coef, log_prob, target_entropy=self.target_entropy)
        state.entropy_optimiser.descend(loss)
        if self.config.max_entropy_coef is not None:
            with torch.no_grad():
                state.log_entropy_coef.clamp_(max=math.log(self.config.max_entropy_coef))
