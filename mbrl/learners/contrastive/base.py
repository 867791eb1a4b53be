"""What learners share whose policy is cloned first, and then set by answered pairs. No learner by itself.

A training has two phases. In the first one the policy clones all logged steps; in the second one it minimises
a loss of answered pairs, which come in a `PreferenceBatch`.
"""

import abc
import copy
import dataclasses
from typing import Annotated, Generic, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import (
    LearnerConfig,
    LearnerContext,
    LearnerState,
    LogStdBounds,
    Optimiser,
    Schedule,
)
from mbrl.nets.actors import ActorSpec, ClippedGaussianActor
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.preferences.segments import PairBatch
from mbrl.preferences.source import PreferenceBatch


class ContrastiveConfig(LearnerConfig):
    """A Gaussian policy that clones, then follows preferences.

    Attributes:
        hidden: widths of the hidden layers.
        log_std_bounds: limits of the policy's log standard deviation, one for all states.
        clone_updates: updates of the first phase.
        learning_rate: Adam rate of both phases; the moments start anew with the second.
        schedule: course of the rate over the run.
        segment_discount: gamma of `sum_t gamma^t log pi(a_t | s_t)` within a segment.
        clone_coef: weight of the cloning error in the second phase.
    """

    hidden: Hidden = (256, 256)
    log_std_bounds: LogStdBounds = (-5.0, 2.0)
    clone_updates: Annotated[int, Field(ge=0, le=1_000_000_000)] = 10_000
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    schedule: Schedule = "constant"
    segment_discount: Annotated[float, Field(gt=0, le=1)] = 1.0
    clone_coef: Annotated[float, Field(ge=0, le=1e6)] = 0.0

    @property
    def reads_rewards(self) -> bool:
        """Answers take the place of rewards."""
        return False

    @property
    def reads_preferences(self) -> bool:
        """Its second phase does."""
        return True


@dataclasses.dataclass(slots=True)
class ContrastiveState(LearnerState):
    """Policy, optimisers of the phases, and how far the training is."""

    actor: ClippedGaussianActor
    clone_optimiser: Optimiser
    optimiser: Optimiser
    updates: int


ConfigT = TypeVar("ConfigT", bound=ContrastiveConfig)
StateT = TypeVar("StateT", bound=ContrastiveState)


class ContrastiveLearner(abc.ABC, Generic[ConfigT, StateT]):
    """The two phases; a learner says what answered pairs cost.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    def __init__(self, config: ConfigT, context: LearnerContext) -> None:
        if context.space.is_discrete:
            raise ConfigError(
                "This learner's policy is a Gaussian, and the log's actions are choices. Remedy: fit a "
                "reward model (mbrl fit-reward), and train a learner of choices on the relabelled log."
            )
        self.config, self.context = config, context

    @abc.abstractmethod
    def init(self, generator: torch.Generator) -> StateT:
        """Fresh networks and optimisers."""

    @abc.abstractmethod
    def pair_loss(self, state: StateT, pairs: PairBatch) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 2"]]:
        """Loss of each pair, and the scores of left and right behind it."""

    def begin_contrast(self, state: StateT) -> None:
        """Called once, between the phases."""

    def update(self, state: StateT, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the phase that the training is in; draws nothing.

        Raises:
            ConfigError: the second phase is given a batch without pairs.
        """
        del generator
        state.updates += 1
        if state.updates <= self.config.clone_updates:
            loss = -state.actor.log_prob(batch.observation, batch.action).mean()
            state.clone_optimiser.descend(loss)
            return {"policy/clone_loss": loss.detach()}
        if not isinstance(batch, PreferenceBatch):
            raise ConfigError(
                f"{type(self).__name__} learns from preferences after {self.config.clone_updates:,} updates, "
                "and this stream has none. Remedy: recipe: preferences."
            )
        if state.updates == self.config.clone_updates + 1:
            self.begin_contrast(state)
        losses, scores = self.pair_loss(state, batch.pairs)
        loss = losses.mean()
        metrics = {"policy/loss": loss.detach()}
        if self.config.clone_coef > 0:
            clone = -state.actor.log_prob(batch.observation, batch.action).mean()
            metrics["policy/clone_loss"] = clone.detach()
            loss = loss + self.config.clone_coef * clone
        state.optimiser.descend(loss)
        return {**metrics, "policy/pair_accuracy": pair_accuracy(scores.detach(), batch.pairs.target)}

    def policy(self, state: StateT) -> ClippedGaussianActor:
        """The policy, in either phase."""
        return state.actor

    def value(self, state: StateT) -> None:
        """A policy without values."""
        del state

    def passes(self, state: StateT) -> tuple[NetworkPass, ...]:
        """The clone's step; what a contrast takes depends on the segments and not on the batch."""
        return (NetworkPass(state.actor.net, "parameters"),)

    def log_probs(self, actor: ClippedGaussianActor, pairs: PairBatch) -> Float[Tensor, "n 2"]:
        """`sum_t gamma^t log pi(a_t | s_t)` of left and right, differentiable."""
        valid = pairs.valid
        steps = actor.log_prob(pairs.observation.flatten(0, 2), pairs.action.flatten(0, 2)).view(valid.shape)
        weight = self.config.segment_discount ** torch.arange(valid.shape[-1], device=valid.device)
        return (steps * weight * valid).sum(-1)

    def build_parts(self, generator: torch.Generator) -> tuple[ClippedGaussianActor, Optimiser, Optimiser]:
        """The policy and the optimisers of both phases."""
        config, context = self.config, self.context
        spec = ActorSpec(
            "clipped_gaussian", context.space, config.hidden, log_std_bounds=config.log_std_bounds
        )
        actor = ClippedGaussianActor(spec, copy.deepcopy(context.normaliser), generator)
        clone = Optimiser(list(actor.parameters()), config.learning_rate)
        # The mean alone: a deviation that answers could move would make every logged action likely, or none;
        # that of the clone is how far people's actions scatter. The reference code of CPL fixes it, too.
        contrast = Optimiser(
            actor.net.flat,
            config.learning_rate,
            schedule=config.schedule,
            total_steps=max(context.total_updates - config.clone_updates, 1),
        )
        return actor, clone, contrast


def pair_accuracy(scores: Float[Tensor, "n 2"], target: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Share of answers whose side has the larger score; equal pairs count half."""
    prefers_left = (scores[:, 0] > scores[:, 1]).to(target.dtype)
    return (prefers_left * target + (1 - prefers_left) * (1 - target)).mean()
