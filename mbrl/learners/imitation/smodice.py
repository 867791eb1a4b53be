"""Weighted imitation: a log is cloned by weights that make its occupancy that of an expert.

Sources: Ma et al. 2022 (SMODICE, arXiv:2202.02433) for matching states; Kim et al. 2022 (DemoDICE, ICLR) for
matching states and actions in a log that holds the demonstrations.

Departures:
- the discriminator, V and the policy learn side by side; the papers fit the discriminator first;
- V is unregularised but for the rate of its optimiser, and the log-ratio is bounded by the discriminator's
  gradient penalty alone;
- observations are standardised inside the networks.
"""

import copy
import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import DemonstrationBatch, Metrics, TransitionBatch, plain, take
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
from mbrl.nets.discriminator import Discriminator
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.imitation import (
    Divergence,
    discrimination_loss,
    occupancy_dual_loss,
    occupancy_error,
    occupancy_weights,
)


class SMODICEConfig(LearnerConfig):
    """Cloning by the weights of an expert's occupancy.

    Attributes:
        hidden: widths of the hidden layers of all networks.
        reads_actions: whether the discriminator reads actions (DemoDICE); else it compares states (SMODICE),
            and learns nothing of the actions of the demonstrations.
        divergence: f of the dual: `chi2`, or `kl`, whose weights are of mean 1 in each batch.
        gradient_penalty: of the discriminator, weight of `(|grad| - 1)^2`; 0 for none.
        log_std_bounds: limits of the policy's log standard deviation, before squashing.
        learning_rate: Adam rate of policy and V.
        schedule: course of the policy's rate over the run.
        discriminator_learning_rate: Adam rate of the discriminator.
    """

    hidden: Hidden = (256, 256)
    reads_actions: bool = False
    divergence: Divergence = "chi2"
    gradient_penalty: Annotated[float, Field(ge=0, le=1e4)] = 0.1
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    schedule: Schedule = "constant"
    discriminator_learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4

    @property
    def batch_kind(self) -> BatchKind:
        """An expert's steps are read beside those of the log."""
        return "demonstrations"

    @property
    def reads_rewards(self) -> bool:
        """The expert takes the place of rewards."""
        return False


@dataclasses.dataclass(slots=True)
class SMODICEState(LearnerState):
    """Networks and optimisers."""

    actor: TanhGaussianActor
    critic: StateValue
    discriminator: Discriminator
    actor_optimiser: Optimiser
    critic_optimiser: Optimiser
    discriminator_optimiser: Optimiser


@LEARNERS.register("smodice", "Cloning by weights that match an expert's occupancy (SMODICE, DemoDICE).")
class SMODICE:
    """The SMODICE learner.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = SMODICEConfig

    def __init__(self, config: SMODICEConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> SMODICEState:
        """Fresh networks and optimisers."""
        config, context = self.config, self.context
        spec = ActorSpec("tanh_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds)
        actor = TanhGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        critic = StateValue(
            context.space, config.hidden, copy.deepcopy(context.normaliser), generator=generator
        )
        discriminator = Discriminator(
            context.space,
            config.hidden,
            context.normaliser,
            reads_actions=config.reads_actions,
            shaping_discount=None,
            generator=generator,
        )
        actor_optimiser = Optimiser(
            actor.net.flat,
            config.learning_rate,
            schedule=config.schedule,
            total_steps=context.total_updates,
        )
        return SMODICEState(
            actor,
            critic,
            discriminator,
            actor_optimiser,
            Optimiser(critic.net.flat, config.learning_rate),
            Optimiser(discriminator.trained, config.discriminator_learning_rate),
        )

    def update(self, state: SMODICEState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the discriminator, of V, and of the clone with the new weights.

        Raises:
            TypeError: there is no expert in the batch.
        """
        if not isinstance(batch, DemonstrationBatch):
            raise TypeError(f"smodice learns from a DemonstrationBatch, not from a {type(batch).__name__}")
        # R = log d_E / d_O, on states or on states and actions                       (SMODICE, eq. 14)
        metrics = self._update_discriminator(state, batch, generator)
        with torch.no_grad():
            reward = state.discriminator.reward(batch.observation, batch.action)
        # V: (1 - g) E V(s_0) + E f*(R + g V(s') - V(s))                              (eqs. 16, 17)
        metrics |= self._update_critic(state, batch, reward)
        # pi: -xi log pi(a|s), xi = d_E* / d_O                                        (eq. 20)
        return metrics | self._update_actor(state, batch, reward)

    def policy(self, state: SMODICEState) -> TanhGaussianActor:
        """The clone."""
        return state.actor

    def value(self, state: SMODICEState) -> StateValueAlone:
        """V of the dual, of the learned log-ratio."""
        return StateValueAlone(state.critic)

    def reward_model(self, state: SMODICEState) -> Discriminator:
        """The log-ratio of the expert's occupancy to that of the log."""
        return state.discriminator

    def passes(self, state: SMODICEState) -> tuple[NetworkPass, ...]:
        """The discriminator at the log, V at both ends of the steps, once more for the weights; the clone.

        What demonstrations and start states cost besides is left out: there are as many as the recipe says.
        """
        return (
            NetworkPass(state.discriminator.g.net, "parameters"),
            NetworkPass(state.discriminator.g.net),
            NetworkPass(state.critic.net, "parameters", rows=2),
            NetworkPass(state.critic.net, rows=2),
            NetworkPass(state.actor.net, "parameters"),
        )

    def _update_discriminator(
        self, state: SMODICEState, batch: DemonstrationBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        discriminator, expert = state.discriminator, batch.expert
        loss = discrimination_loss(
            discriminator.reward(expert.observation, expert.action),
            discriminator.reward(batch.observation, batch.action),
        )
        metrics = {"imitation/loss": loss.detach()}
        if self.config.gradient_penalty > 0:
            count = min(len(batch), len(expert))
            rows = torch.arange(count, device=batch.reward.device)
            share = torch.rand(count, generator=generator, device=generator.device)
            penalty = discriminator.gradient_penalty(take(expert, rows), take(plain(batch), rows), share)
            loss = loss + self.config.gradient_penalty * penalty
        state.discriminator_optimiser.descend(loss)
        return metrics

    def _error(
        self, state: SMODICEState, batch: TransitionBatch, reward: Float[Tensor, "b"]
    ) -> Float[Tensor, "b"]:
        return occupancy_error(
            reward,
            state.critic(batch.observation),
            state.critic(batch.next_observation),
            batch.terminated,
            discount=self.config.discount,
        )

    def _update_critic(
        self, state: SMODICEState, batch: DemonstrationBatch, reward: Float[Tensor, "b"]
    ) -> dict[str, Tensor]:
        loss = occupancy_dual_loss(
            state.critic(batch.initial_observation),
            self._error(state, batch, reward),
            discount=self.config.discount,
            divergence=self.config.divergence,
        )
        state.critic_optimiser.descend(loss)
        return {"imitation/dual": loss.detach()}

    def _update_actor(
        self, state: SMODICEState, batch: TransitionBatch, reward: Float[Tensor, "b"]
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            weight = occupancy_weights(self._error(state, batch, reward), divergence=self.config.divergence)
            # Of mean 1 in the batch: the level says how well V has converged, not how much there is to learn.
            weight = weight / weight.mean().clamp_min(1e-6)
        loss = -(weight * state.actor.log_prob(batch.observation, batch.action)).mean()
        state.actor_optimiser.descend(loss)
        # Rows that a batch counts for: 1 / sum of squares of the shares.
        effective = weight.sum().square() / weight.square().sum().clamp_min(1e-12)
        return {
            "policy/loss": loss.detach(),
            "imitation/effective_share": effective / len(batch),
            "imitation/reward": reward.mean(),
        }
