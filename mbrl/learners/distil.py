"""Distillation: the policy regresses to improved decisions that a search found, anchored to a clone.

Source: the policy and value losses of MuZero Reanalyse in its offline form (Schrittwieser et al. 2021,
arXiv:2104.06294), with the cross-entropy to a sampled set of actions as `-log pi` at draws of it (Hubert et
al. 2021, arXiv:2104.06303).

Departures:
- a clone of the log is learned beside the policy, and the policy pays `KL(pi || clone)` for leaving it;
- until the first improved decision arrives the policy is the clone;
- values are those of the policy, by one-step targets on logged rows; improved rows can be a last step whose
  reward is the value that the search found, and be learned as well (`learns_search_values`).
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

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
from mbrl.nets.actors import ActorSpec, TanhGaussianActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.gaussian import gaussian_kl
from mbrl.ops.losses import masked_mean
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import td_target


class DistilConfig(LearnerConfig):
    """Regression to improved decisions.

    Attributes:
        hidden: widths of the hidden layers of policy, clone and critics.
        critics: N; targets take the least of them.
        critic_layer_norm: LayerNorm in the critics.
        learns_search_values: the critics regress to the rewards of improved rows besides: for small logs.
        anchor_coef: zeta, weight of `KL(pi || clone)` in nats beside the mean `-log pi` of improved actions.
        log_std_bounds: limits of the log standard deviations of policy and clone.
        actor_learning_rate: Adam rate of policy and clone.
        actor_schedule: course of that rate over the run.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online critics that enters the target critics at each update.
    """

    hidden: Hidden = (256, 256)
    critics: Annotated[int, Field(ge=1, le=1000)] = 2
    critic_layer_norm: bool = True
    learns_search_values: bool = False
    anchor_coef: Annotated[float, Field(ge=0, le=1e6)] = 0.1
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    actor_schedule: Schedule = "constant"
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005


@dataclasses.dataclass(slots=True)
class DistilState(LearnerState):
    """Networks and optimisers, and `is_improving` `[]`: whether an improved decision was ever seen."""

    actor: TanhGaussianActor
    clone: TanhGaussianActor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    actor_optimiser: Optimiser
    clone_optimiser: Optimiser
    critic_optimiser: Optimiser
    is_improving: Tensor


@LEARNERS.register("distil", "Regression to the improved decisions of a search, anchored to a clone.")
class Distil:
    """The distilling learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = DistilConfig

    def __init__(self, config: DistilConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> DistilState:
        """Fresh networks and optimisers; policy and clone begin alike."""
        config, context = self.config, self.context
        spec = ActorSpec("tanh_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds)
        # The policy is a copy of the clone: until the first
        # improved decision both are to be bitwise the same.
        clone = TanhGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        actor = copy.deepcopy(clone)
        critic = CriticEnsemble(
            config.critics,
            context.space,
            config.hidden,
            copy.deepcopy(context.normaliser),
            generator=generator,
            layer_norm=config.critic_layer_norm,
        )
        return DistilState(
            actor=actor,
            clone=clone,
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            actor_optimiser=self._actor_optimiser(actor),
            clone_optimiser=self._actor_optimiser(clone),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
            is_improving=torch.zeros((), dtype=torch.bool, device=generator.device),
        )

    def update(self, state: DistilState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics, the clone, the policy and the targets.

        Whether decisions have arrived is never read back: until then the policy equals the clone, so
        its gradient is zero, and it is copied from the clone.
        """
        state.is_improving.logical_or_(batch.from_model.any())
        # Q: (Q_i(s, a) - r - g (1 - terminated) min_j Q'_j(s', a'))^2, a' ~ pi(s'), on logged rows
        metrics = self._update_critics(state, batch, generator)
        # pi: -log pi(a*|s) at improved decisions a*, + zeta KL(pi(.|s) || clone(.|s)) on all rows
        metrics |= self._update_policy(state, batch)
        # clone: -log clone(a|s) on logged rows
        metrics |= self._update_clone(state, batch)
        # pi <- clone until the first improved decision
        with torch.no_grad():
            actor, clone = state.actor.net.flat, state.clone.net.flat
            actor.copy_(torch.where(state.is_improving, actor, clone))
        # Q' <- (1 - tau) Q' + tau Q
        polyak_update(state.target_critic.net.flat, state.critic.net.flat, polyak_tau=self.config.polyak_tau)
        return metrics

    def policy(self, state: DistilState) -> TanhGaussianActor:
        """The policy."""
        return state.actor

    def value(self, state: DistilState) -> PolicyValue:
        """The critics at the policy's action."""
        return PolicyValue(state.actor, state.critic)

    def passes(self, state: DistilState) -> tuple[NetworkPass, ...]:
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
    def critic_target(self, state: DistilState, batch: TransitionBatch, noise: Tensor) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) min_i Q_i(s', a')`, `a' ~ pi(s')`, target critics, no gradients."""
        # The policy's own action: values are those of the policy that is distilled, not of the search.
        next_action, _ = state.actor.sample_with_log_prob(batch.next_observation, noise)
        next_value = state.target_critic(batch.next_observation, next_action).amin(0)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.config.discount)

    def _update_critics(
        self, state: DistilState, batch: TransitionBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        # The reward of an improved row is the bound that a search found, of the searched action alone.
        rows = None if self.config.learns_search_values else ~batch.from_model
        noise = torch.randn(batch.action.shape, generator=generator, device=generator.device)
        target = self.critic_target(state, batch, noise)
        return regress_critics(state.critic, state.critic_optimiser, batch, target, is_included=rows)

    def policy_loss(
        self, state: DistilState, batch: TransitionBatch
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """`mean_improved [-log pi(a|s)] + zeta mean KL(pi(.|s) || clone(.|s))`.

        Args:
            state: of this learner.
            batch: logged rows, and improved ones: those `from_model`.
        """
        # One pass serves the density of improved decisions and the divergence from the clone.
        moments = state.actor.moments(batch.observation)
        log_prob = state.actor.log_prob_of_moments(batch.action, *moments)
        # 0 without improved rows: there is then nothing to learn, and the anchor below is all that acts.
        cross_entropy = -masked_mean(log_prob, batch.from_model)
        with torch.no_grad():
            # A constant here: a clone with this gradient would come to meet the policy, and hold nothing.
            anchor = state.clone.moments(batch.observation)
        # On all rows: where no decision was improved the anchor alone says what to do. KL(pi || clone)
        # punishes actions that the clone does not take, and lets the policy leave out some that it does.
        divergence = gaussian_kl(moments, anchor).mean()
        loss = cross_entropy + self.config.anchor_coef * divergence
        return loss, {
            "policy/loss": loss.detach(),
            "policy/cross_entropy": cross_entropy.detach(),
            "policy/clone_divergence": divergence.detach(),
        }

    def _update_policy(self, state: DistilState, batch: TransitionBatch) -> dict[str, Tensor]:
        loss, metrics = self.policy_loss(state, batch)
        state.actor_optimiser.descend(loss)
        return metrics

    def _update_clone(self, state: DistilState, batch: TransitionBatch) -> dict[str, Tensor]:
        # Logged rows only: a clone of improved decisions would follow the policy out of the data.
        loss = -masked_mean(state.clone.log_prob(batch.observation, batch.action), ~batch.from_model)
        state.clone_optimiser.descend(loss)
        return {"clone/loss": loss.detach()}

    def _actor_optimiser(self, actor: TanhGaussianActor) -> Optimiser:
        return Optimiser(
            actor.net.flat,
            self.config.actor_learning_rate,
            schedule=self.config.actor_schedule,
            total_steps=self.context.total_updates,
        )
