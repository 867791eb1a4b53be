"""A learner whose rewards are what a discriminator has learned so far of an expert. No recipe by itself."""

import dataclasses
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.algorithms.base import RecipeContext
from mbrl.core.errors import ConfigError
from mbrl.core.protocols import Learner, Policy, StateValueFn, StochasticPolicy
from mbrl.core.types import DemonstrationBatch, Metrics, TransitionBatch, concat, plain, take
from mbrl.data.sources import imagined_rows
from mbrl.learners.base import LearnerState, Optimiser
from mbrl.nets.discriminator import Discriminator
from mbrl.ops.imitation import airl_logit, discrimination_loss


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdversaryConfig:
    """How the discriminator learns; see `AdversarialConfig`, which has the same names."""

    subtracts_log_prob: bool
    reads_actions: bool
    shaping: bool
    hidden: tuple[int, ...]
    learning_rate: float
    gradient_penalty: float
    discount: float
    real_ratio: float
    batch_size: int


@dataclasses.dataclass(slots=True)
class AdversarialState(LearnerState):
    """The policy's learner and the discriminator."""

    learner: Any
    discriminator: Discriminator
    optimiser: Optimiser


class AdversarialLearner:
    """Discriminator and policy in turns; a `Learner` of `DemonstrationBatch`.

    Args:
        learner: of the policy, from `TransitionBatch`es.
        config: of the discriminator.
        context: sizes and normaliser.
    """

    def __init__(self, learner: Learner[Any], config: AdversaryConfig, context: RecipeContext) -> None:
        self.learner, self.config, self.context = learner, config, context

    def init(self, generator: torch.Generator) -> AdversarialState:
        """Fresh networks and optimisers."""
        config = self.config
        inner = self.learner.init(generator)
        discriminator = Discriminator(
            self.context.space,
            config.hidden,
            self.context.normaliser,
            reads_actions=config.reads_actions,
            shaping_discount=config.discount if config.shaping else None,
            generator=generator,
        )
        return AdversarialState(inner, discriminator, Optimiser(discriminator.trained, config.learning_rate))

    def update(self, state: AdversarialState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the discriminator, then one update of the policy's learner on its rewards.

        The rewards that come with the batch are added: the stream's penalties.

        Raises:
            TypeError: there is no expert in the batch.
        """
        if not isinstance(batch, DemonstrationBatch):
            raise TypeError(f"imitation learns from a DemonstrationBatch, not from a {type(batch).__name__}")
        metrics = self._update_discriminator(state, batch, generator)
        # The critics learn from the expert's steps as well: they are the ones that end well.
        rows = concat([plain(batch), batch.expert])
        with torch.no_grad():
            learned = state.discriminator.shaped(rows)
        rows = dataclasses.replace(rows, reward=rows.reward + learned)
        found = self.learner.update(state.learner, rows, generator)
        return {**found, **metrics, "imitation/reward": learned.mean()}

    def policy(self, state: AdversarialState) -> Policy:
        """The learner's."""
        return self.learner.policy(state.learner)

    def value(self, state: AdversarialState) -> StateValueFn | None:
        """The learner's, of the learned reward as it moved, nats."""
        return self.learner.value(state.learner)

    def reward_model(self, state: AdversarialState) -> Discriminator:
        """The discriminator."""
        return state.discriminator

    def logit(self, state: AdversarialState, rows: TransitionBatch) -> Float[Tensor, "b"]:
        """`log D / (1 - D)` of some steps, differentiable in the discriminator.

        Raises:
            ConfigError: AIRL needs a density, and the policy has none.
        """
        advantage = state.discriminator.shaped(rows)
        if not self.config.subtracts_log_prob:
            return advantage
        policy = self.policy(state)
        if not isinstance(policy, StochasticPolicy):
            raise ConfigError(
                "AIRL's discriminator reads the policy's density, and this policy has none. Remedy: "
                "algorithm.learner.name=sac, or algorithm.form=gail."
            )
        with torch.no_grad():
            log_prob = policy.log_prob(rows.observation, rows.action)
        return airl_logit(advantage, log_prob)

    def _update_discriminator(
        self, state: AdversarialState, batch: DemonstrationBatch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        # The expert is told from what policies of late imagined, not from the log.
        others = take(plain(batch), imagined_rows(batch, self.config.real_ratio, self.config.batch_size))
        expert_logit, other_logit = self.logit(state, batch.expert), self.logit(state, others)
        loss = discrimination_loss(expert_logit, other_logit)
        metrics = {
            "imitation/loss": loss.detach(),
            "imitation/expert_accuracy": (expert_logit > 0).double().mean(),
            "imitation/policy_accuracy": (other_logit < 0).double().mean(),
        }
        if self.config.gradient_penalty > 0:
            count = min(len(others), len(batch.expert))
            pairs = torch.arange(count, device=generator.device)
            share = torch.rand(count, generator=generator, device=generator.device)
            penalty = state.discriminator.gradient_penalty(
                take(batch.expert, pairs), take(others, pairs), share
            )
            loss = loss + self.config.gradient_penalty * penalty
            metrics["imitation/gradient_penalty"] = penalty.detach()
        state.optimiser.descend(loss)
        return metrics
