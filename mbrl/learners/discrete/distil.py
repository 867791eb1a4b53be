"""Discrete distillation: the policy regresses to improved choices that a search found, anchored to a clone.

Source: the policy loss of MuZero Reanalyse in its offline form (Schrittwieser et al. 2021, arXiv:2104.06294).

Departures: those of `distil`, of which this is the form over choices; values are expectations over all
choices of the policy instead of draws.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, LearnerContext, LearnerState, Optimiser, Schedule
from mbrl.learners.critics import critic_metrics
from mbrl.learners.discrete.choices import ChoiceLearnerConfig, ChoiceValue
from mbrl.nets.categorical import CategoricalSpec, SoftmaxPolicy
from mbrl.nets.critics import ChoiceCritics
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.choices import expectation, log_probability_of, take_choice, without_empty
from mbrl.ops.losses import critic_loss, masked_mean
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import td_target


class DiscreteDistilConfig(ChoiceLearnerConfig):
    """Regression to improved choices.

    Attributes:
        hidden: widths of the hidden layers of policy, clone and critics.
        critics: N; targets take the least of them.
        critic_layer_norm: LayerNorm in the critics.
        anchor_coef: zeta, weight of `KL(pi || clone)` in nats beside the mean `-log pi` of improved choices.
        actor_learning_rate: Adam rate of policy and clone.
        actor_schedule: course of that rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    critic_layer_norm: bool = True
    anchor_coef: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class DiscreteDistilState(LearnerState):
    """Networks and optimisers, and `is_improving` `[]`: whether an improved choice was ever seen."""

    actor: SoftmaxPolicy
    clone: SoftmaxPolicy
    critic: ChoiceCritics
    target_critic: ChoiceCritics
    actor_optimiser: Optimiser
    clone_optimiser: Optimiser
    critic_optimiser: Optimiser
    is_improving: Tensor


@LEARNERS.register("discrete_distil", "Regression to the improved choices of a search, anchored to a clone.")
class DiscreteDistil:
    """The distilling learner over choices.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = DiscreteDistilConfig

    def __init__(self, config: DiscreteDistilConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> DiscreteDistilState:
        """Fresh networks and optimisers; policy and clone begin alike."""
        config, context = self.config, self.context
        spec = CategoricalSpec("softmax", context.space, config.hidden)
        # The policy is a copy: until the first improved choice both are to be bitwise the same.
        clone = SoftmaxPolicy(spec, copy.deepcopy(context.normaliser), generator)
        actor = copy.deepcopy(clone)
        critic = ChoiceCritics(
            config.critics,
            context.space.obs_dim,
            context.space.act_dim,
            config.hidden,
            generator=generator,
            layer_norm=config.critic_layer_norm,
        )
        return DiscreteDistilState(
            actor=actor,
            clone=clone,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            actor_optimiser=self._actor_optimiser(actor),
            clone_optimiser=self._actor_optimiser(clone),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
            is_improving=torch.zeros((), dtype=torch.bool, device=generator.device),
        )

    def update(
        self, state: DiscreteDistilState, batch: TransitionBatch, generator: torch.Generator
    ) -> Metrics:
        """One step of the critics, the policy, the clone and the targets; draws nothing."""
        del generator
        state.is_improving.logical_or_(batch.from_model.any())
        # Q: (Q_i(s, a) - r - g (1 - terminated) sum_a' pi(a'|s') min_j Q'_j(s', a'))^2, on logged rows: the
        # reward of an improved row is the bound that a search found
        target = self.critic_target(state, batch)
        values = take_choice(state.critic(state.actor.normaliser(batch.observation)), batch.action)
        loss = critic_loss(values, target, is_included=~batch.from_model)
        state.critic_optimiser.descend(loss)
        # pi: -log pi(a*|s) at improved choices a*, + zeta KL(pi(.|s) || clone(.|s)) on all rows
        policy_loss, metrics = self.policy_loss(state, batch)
        state.actor_optimiser.descend(policy_loss)
        # clone: -log clone(a|s) on logged rows
        log_clone = state.clone.log_probs(batch.observation, batch.action_mask)
        clone_loss = -masked_mean(log_probability_of(log_clone, batch.action), ~batch.from_model)
        state.clone_optimiser.descend(clone_loss)
        # pi <- clone until the first improved choice
        with torch.no_grad():
            actor, clone = state.actor.net.flat, state.clone.net.flat
            actor.copy_(torch.where(state.is_improving, actor, clone))
        # Q' <- (1 - tau) Q' + tau Q
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=self.config.polyak_tau)
        return {**critic_metrics(values, loss), **metrics, "clone/loss": clone_loss.detach()}

    def policy(self, state: DiscreteDistilState) -> SoftmaxPolicy:
        """The policy."""
        return state.actor

    def value(self, state: DiscreteDistilState) -> ChoiceValue:
        """The critics at the policy's likeliest choice."""
        return ChoiceValue(state.actor, state.critic, state.actor.normaliser)

    def passes(self, state: DiscreteDistilState) -> tuple[NetworkPass, ...]:
        """The target and the critics; the policy, the clone that it is held to, and the clone's training."""
        return (
            NetworkPass(state.actor.net),
            NetworkPass(state.target_critic.net),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.actor.net, "parameters"),
            NetworkPass(state.clone.net),
            NetworkPass(state.clone.net, "parameters"),
        )

    @torch.no_grad()
    def critic_target(self, state: DiscreteDistilState, batch: TransitionBatch) -> Float[Tensor, "b"]:
        """`r + g (1 - terminated) sum_a' pi(a'|s') min_i Q'_i(s', a')`, without gradients."""
        # Padding behind an end may allow nothing, and is not read.
        log_probs = state.actor.log_probs(batch.next_observation, without_empty(batch.next_action_mask))
        least = state.target_critic(state.actor.normaliser(batch.next_observation)).amin(0)
        next_value = expectation(log_probs, least)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    def policy_loss(
        self, state: DiscreteDistilState, batch: TransitionBatch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """`mean_improved [-log pi(a|s)] + zeta mean KL(pi(.|s) || clone(.|s))`.

        Args:
            state: of this learner.
            batch: logged rows, and improved ones: those `from_model`.
        """
        log_probs = state.actor.log_probs(batch.observation, batch.action_mask)
        cross_entropy = -masked_mean(log_probability_of(log_probs, batch.action), batch.from_model)
        with torch.no_grad():
            # A constant here: a clone with this gradient would come to meet the policy, and hold nothing.
            anchor = state.clone.log_probs(batch.observation, batch.action_mask)
        # KL = sum_a pi (log pi - log clone); forbidden choices, minus infinity in both, add nothing.
        divergence = (expectation(log_probs, log_probs) - expectation(log_probs, anchor)).mean()
        loss = cross_entropy + self.config.anchor_coef * divergence
        return loss, {
            "policy/loss": loss.detach(),
            "policy/cross_entropy": cross_entropy.detach(),
            "policy/clone_divergence": divergence.detach(),
        }

    def _actor_optimiser(self, actor: SoftmaxPolicy) -> Optimiser:
        return Optimiser(
            actor.net.flat,
            self.config.actor_learning_rate,
            schedule=self.config.actor_schedule,
            total_steps=self.context.total_updates,
        )
