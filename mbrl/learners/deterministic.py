"""What learners with deterministic actors share: TD3's smoothed targets, delayed updates and critic step.

No learner stands here. Source: Fujimoto et al. 2018 (arXiv:1802.09477).
"""

import abc
import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LearnerConfig, LearnerContext, LearnerState, Optimiser
from mbrl.learners.critics import PolicyValue, regress_critics
from mbrl.nets.actors import ActorSpec, DeterministicActor
from mbrl.nets.critics import CriticEnsemble
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.polyak import polyak_update
from mbrl.ops.targets import smoothed_action, td_target

TWIN = 2
"""Critics of TD3."""


class TD3Config(LearnerConfig):
    """The part of TD3 in TD3+BC and ReBRAC.

    Attributes:
        hidden: widths of the hidden layers of actor and critics.
        critic_layer_norm: LayerNorm in the critics.
        actor_learning_rate: Adam rate of the actor.
        critic_learning_rate: Adam rate of the critics.
        polyak_tau: share of the online networks that enters the targets when they move.
        target_noise_std: deviation of the noise on target actions, scaled action units.
        target_noise_clip: largest size of that noise.
        policy_interval: updates of the critics for one of the actor and of all targets.
    """

    hidden: Hidden = (256, 256)
    critic_layer_norm: bool = False
    actor_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    critic_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    polyak_tau: Annotated[float, Field(gt=0, le=1)] = 0.005
    target_noise_std: Annotated[float, Field(ge=0, le=2)] = 0.2
    target_noise_clip: Annotated[float, Field(ge=0, le=2)] = 0.5
    policy_interval: Annotated[int, Field(ge=1, le=1000)] = 2


@dataclasses.dataclass(slots=True)
class TD3State(LearnerState):
    """Networks, optimisers and the number of updates, which the delays count."""

    actor: DeterministicActor
    target_actor: DeterministicActor
    critic: CriticEnsemble
    target_critic: CriticEnsemble
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    updates: int = 0


class TD3Learner(abc.ABC):
    """TD3 with two gaps: the loss of the actor and the value of the next state.

    An update is one step of the critics. Every `policy_interval`-th update then makes a step of the actor
    against the new critics, and after it moves both targets towards the new networks.

    Args:
        config: hyper-parameters.
        context: the task's sizes and the normaliser.

    Attributes:
        critics_asked: by the loss of the actor.
    """

    critics_asked: ClassVar[int] = TWIN

    def __init__(self, config: TD3Config, context: LearnerContext) -> None:
        self.td3, self.context = config, context

    @abc.abstractmethod
    def actor_loss(self, state: TD3State, batch: TransitionBatch) -> Float[Tensor, ""]:
        """What the actor descends, differentiable in its parameters."""

    def init(self, generator: torch.Generator) -> TD3State:
        """Fresh networks and optimisers."""
        config, context = self.td3, self.context
        spec = ActorSpec("deterministic", context.space, config.hidden)
        # The actor before the critics: which weights a seed means depends on the order of the draws.
        actor = DeterministicActor(spec, copy.deepcopy(context.normaliser), generator)
        critic = CriticEnsemble(
            TWIN,
            context.space,
            config.hidden,
            copy.deepcopy(context.normaliser),
            generator=generator,
            layer_norm=config.critic_layer_norm,
        )
        return TD3State(
            actor=actor,
            # Targets begin as copies and move by averaging alone; without gradients they keep no activations.
            target_actor=copy.deepcopy(actor).requires_grad_(requires_grad=False),
            critic=critic,
            target_critic=copy.deepcopy(critic).requires_grad_(requires_grad=False),
            actor_optimiser=Optimiser(actor.net.flat, config.actor_learning_rate),
            critic_optimiser=Optimiser(critic.net.flat, config.critic_learning_rate),
        )

    def phase(self, state: TD3State) -> int:
        """1 where the next update moves the actor and the targets, else 0."""
        return int((state.updates + 1) % self.td3.policy_interval == 0)

    def update(self, state: TD3State, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the critics; every `policy_interval`-th time also of the actor and of the targets."""
        noise = torch.randn(batch.action.shape, generator=generator, device=generator.device)
        # Q: (Q_i(s, a) - r - g (1 - terminated) V(s', a~'))^2, a~' = clip(pi'(s') + clip(eps))  (algorithm 1)
        target = self.critic_target(state, batch, noise)
        metrics = regress_critics(state.critic, state.critic_optimiser, batch, target)
        # pi: the learner's own loss, with the new Q, at every d-th update only (section 5.2).
        state.updates += 1
        if state.updates % self.td3.policy_interval != 0:
            return metrics
        # Policies that follow every error of Q make it worse: d steps of the critics let it settle first.
        loss = self.actor_loss(state, batch)
        state.actor_optimiser.descend(loss)
        # pi' and Q' move with it: targets of the critics stand still in between.
        for moving, source in ((state.target_actor, state.actor), (state.target_critic, state.critic)):
            polyak_update(moving.net.flat, source.net.flat, polyak_tau=self.td3.polyak_tau)
        return {**metrics, "policy/loss": loss.detach()}

    def passes(self, state: TD3State) -> tuple[NetworkPass, ...]:
        """The critics at each update, the actor through those that its loss asks at every few."""
        share = 1 / self.td3.policy_interval
        return (
            NetworkPass(state.target_actor.net),
            NetworkPass(state.target_critic.net),
            NetworkPass(state.critic.net, "parameters"),
            NetworkPass(state.actor.net, "parameters", share=share),
            NetworkPass(state.critic.net, "input", members=self.critics_asked, share=share),
        )

    def policy(self, state: TD3State) -> DeterministicActor:
        """The actor."""
        return state.actor

    def value(self, state: TD3State) -> PolicyValue:
        """The least critic at the actor's action."""
        return PolicyValue(state.actor, state.critic)

    @torch.no_grad()
    def critic_target(
        self, state: TD3State, batch: TransitionBatch, noise: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`r + discount (1 - terminated) V(s')`, V the `backup_value` of the smoothed target action."""
        # Smoothing: the target is the value of a neighbourhood, so a
        # narrow peak of Q is worth little (section 5.3).
        next_action = self._target_action(state, batch.next_observation, noise)
        next_value = self.backup_value(state, batch, next_action)
        return td_target(batch.reward, batch.terminated, next_value, discount=self.td3.discount)

    def backup_value(
        self, state: TD3State, batch: TransitionBatch, next_action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s', next_action)` of the target critics; `next_action` in [-1, 1]."""
        # Clipped double Q-learning: of two estimates the one that promises less (section 4.2).
        return state.target_critic(batch.next_observation, next_action).amin(0)

    @torch.no_grad()
    def next_value(
        self, state: TD3State, next_obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s', a')` of the target critics at the smoothed target action, without gradients."""
        return state.target_critic(next_obs, self._target_action(state, next_obs, noise)).amin(0)

    def _target_action(self, state: TD3State, next_obs: Tensor, noise: Tensor) -> Tensor:
        return smoothed_action(
            state.target_actor.scaled_action(next_obs),
            noise,
            noise_std=self.td3.target_noise_std,
            noise_clip=self.td3.target_noise_clip,
        )
