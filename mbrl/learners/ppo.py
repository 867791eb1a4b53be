"""Proximal policy optimisation: a few epochs of clipped policy gradients on steps of the policy itself.

Sources: Schulman et al. 2017 (arXiv:1707.06347); advantages by Schulman et al. 2016 (arXiv:1506.02438),
which the stream takes when the steps are made; in a learned model with penalised rewards, Li et al. 2025
(RWM-U with MOPO-PPO, arXiv:2504.16680).

Departures:
- the policy is a tanh-Gaussian with a deviation for each state, as in Brax: actions never leave their box,
  and densities are those of the actions that were taken;
- policy and value have networks and optimisers of their own, and gradients are not clipped by their norm;
- the entropy of the bonus is estimated by a draw for each state, since a squashed Gaussian has none in closed
  form.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, OnPolicyBatch, TransitionBatch
from mbrl.learners.base import (
    LEARNERS,
    BatchKind,
    LearnerConfig,
    LearnerContext,
    LearnerState,
    LogStdBounds,
    Optimiser,
    Schedule,
)
from mbrl.learners.critics import StateValueAlone
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.critics import StateValue
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.on_policy import approximate_kl, clipped_surrogate_loss, clipped_value_loss, standardise


class PPOConfig(LearnerConfig):
    """Proximal policy optimisation.

    Attributes:
        hidden: widths of the hidden layers of both networks.
        batch_size: steps in a minibatch.
        trace: lambda of GAE; the stream reads it.
        clip: epsilon, how far the ratio of densities may move before its gradient ends.
        value_clip: how far V may move from its old value before its gradient ends, in the learner's unit of
            returns; None never.
        entropy_coef: weight of the entropy, in nats, against standardised advantages.
        standardises_advantages: mean 0 and deviation 1 in each minibatch.
        log_std_bounds: limits of the policy's log standard deviation, before squashing.
        actor_learning_rate: Adam rate of the policy.
        actor_schedule: course of that rate over the run.
        value_learning_rate: Adam rate of V.
    """

    hidden: Hidden = (256, 256)
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 4096
    trace: Annotated[float, Field(ge=0, le=1)] = 0.95
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    value_clip: Annotated[float | None, Field(gt=0, le=1e6)] = None
    entropy_coef: Annotated[float, Field(ge=0, le=10)] = 0.005
    standardises_advantages: bool = True
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    value_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3

    @property
    def batch_kind(self) -> BatchKind:
        """Ratios of densities mean nothing on steps of others."""
        return "on_policy"


@dataclasses.dataclass(slots=True)
class PPOState(LearnerState):
    """Networks and optimisers."""

    actor: TanhGaussianActor
    critic: StateValue
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser


@LEARNERS.register("ppo", "Proximal policy optimisation, on steps of its own policy.")
class PPO:
    """The PPO learner: an update is one minibatch.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = PPOConfig

    def __init__(self, config: PPOConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> PPOState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        spec = ActorSpec("tanh_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds)
        actor = TanhGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        critic = StateValue(
            context.space, config.hidden, copy.deepcopy(context.normaliser), generator=generator
        )
        actor_optimiser = Optimiser(
            actor.net.flat,
            config.actor_learning_rate,
            schedule=config.actor_schedule,
            total_steps=context.total_updates,
        )
        return PPOState(
            actor, critic, actor_optimiser, Optimiser(critic.net.flat, config.value_learning_rate)
        )

    def update(self, state: PPOState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the policy and one of V on a minibatch.

        Raises:
            TypeError: the batch is not of the policy's own steps.
        """
        if not isinstance(batch, OnPolicyBatch):
            raise TypeError(f"ppo learns from an OnPolicyBatch, not from a {type(batch).__name__}")
        noise = torch.randn(batch.action.shape, generator=generator, device=generator.device)
        return {**self._update_actor(state, batch, noise), **self._update_critic(state, batch)}

    def policy(self, state: PPOState) -> TanhGaussianActor:
        """The actor."""
        return state.actor

    def value(self, state: PPOState) -> StateValueAlone:
        """V."""
        return StateValueAlone(state.critic)

    def passes(self, state: PPOState) -> tuple[NetworkPass, ...]:
        """Both networks are trained; the entropy's draw needs no pass of its own."""
        return (NetworkPass(state.actor.net, "parameters"), NetworkPass(state.critic.net, "parameters"))

    def _update_actor(self, state: PPOState, batch: OnPolicyBatch, noise: Tensor) -> dict[str, Tensor]:
        config, actor = self.config, state.actor
        mean, log_std = actor.moments(batch.observation)
        log_prob = actor.log_prob_of_moments(batch.action, mean, log_std)
        advantage = standardise(batch.advantage) if config.standardises_advantages else batch.advantage
        # pi: -min(rho A, clip(rho) A) - c H(pi(s))                                       (eqs. 7 and 9)
        surrogate = clipped_surrogate_loss(log_prob, batch.log_prob, advantage, clip=config.clip)
        entropy = -actor.draw_with_log_prob(noise, mean, log_std)[1].mean()
        state.actor_optimiser.descend(surrogate - config.entropy_coef * entropy)
        with torch.no_grad():
            moved = (torch.exp(log_prob - batch.log_prob) - 1).abs() > config.clip
            kl = approximate_kl(log_prob, batch.log_prob)
        return {
            "policy/loss": surrogate.detach(),
            "policy/entropy": entropy.detach(),
            "policy/kl": kl,
            "policy/clip_rate": moved.double().mean(),
        }

    def _update_critic(self, state: PPOState, batch: OnPolicyBatch) -> dict[str, Tensor]:
        value = state.critic(batch.observation)
        # V: (V(s) - (V_old(s) + A))^2 / 2, the lambda-return                            (eq. 9)
        target = batch.value + batch.advantage
        loss = clipped_value_loss(value, batch.value, target, clip=self.config.value_clip)
        state.critic_optimiser.descend(loss)
        value = value.detach()
        return {"critic/loss": loss.detach(), "critic/value": value.mean(), "critic/value_max": value.max()}
