"""What learners share whose policy is cloned first, and then set by answered pairs. No learner by itself.

A training has two phases. In the first one the policy clones all logged steps; in the second one it minimises
a loss of answered pairs, which come in a `PreferenceBatch`.
"""

import abc
import copy
import dataclasses
from typing import Annotated, Generic, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from mbrl.core.errors import ConfigError
from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import (
    BatchKind,
    LearnerConfig,
    LearnerContext,
    LearnerState,
    Optimiser,
    Schedule,
)
from mbrl.nets.actors import ActorSpec, ClippedGaussianActor
from mbrl.nets.categorical import CategoricalSpec, SoftmaxPolicy
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.choices import log_probability_of
from mbrl.preferences.segments import PairBatch
from mbrl.preferences.source import PreferenceBatch

DensityPolicy: TypeAlias = ClippedGaussianActor | SoftmaxPolicy
"""A Gaussian in a box of actions, or a softmax over choices."""


class ContrastiveConfig(LearnerConfig):
    """A policy with a density that clones, then follows preferences.

    Attributes:
        hidden: widths of the hidden layers.
        clone_updates: updates of the first phase.
        learning_rate: Adam rate of both phases; the moments start anew with the second.
        schedule: course of the rate over the second phase.
        segment_discount: gamma of `sum_t gamma^t log pi(a_t | s_t)` within a segment.
        clone_coef: weight of the cloning error in the second phase.
    """

    hidden: Hidden = (256, 256)
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
    def batch_kind(self) -> BatchKind:
        """Logged steps, and answered pairs beside them."""
        return "preferences"


@dataclasses.dataclass(slots=True)
class ContrastiveState(LearnerState):
    """Policy, optimisers of the phases, and how far the training is."""

    actor: DensityPolicy
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
        self.config, self.context = config, context

    @abc.abstractmethod
    def init(self, generator: torch.Generator) -> StateT:
        """Fresh networks and optimisers."""

    @abc.abstractmethod
    def pair_loss(self, state: StateT, pairs: PairBatch) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 2"]]:
        """Loss of each pair, and the scores of left and right behind it."""

    def begin_contrast(self, state: StateT) -> None:
        """Called once, between the phases."""

    def phase(self, state: StateT) -> int | None:
        """0 while it clones, 1 afterwards; the update between the two is made once."""
        done = state.updates - self.config.clone_updates
        return None if done == 0 else int(done > 0)

    def update(self, state: StateT, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the phase that the training is in; draws nothing.

        Raises:
            ConfigError: the second phase is given a batch without pairs.
        """
        del generator
        state.updates += 1
        if state.updates <= self.config.clone_updates:
            loss = cloning_error(state.actor, batch)
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
            clone = cloning_error(state.actor, batch)
            metrics["policy/clone_loss"] = clone.detach()
            loss = loss + self.config.clone_coef * clone
        state.optimiser.descend(loss)
        return {**metrics, "policy/pair_accuracy": pair_accuracy(scores.detach(), batch.pairs.target)}

    def policy(self, state: StateT) -> DensityPolicy:
        """The policy, in either phase."""
        return state.actor

    def value(self, state: StateT) -> None:
        """A policy without values."""
        del state

    def passes(self, state: StateT) -> tuple[NetworkPass, ...]:
        """The clone's step; what a contrast takes depends on the segments and not on the batch."""
        return (NetworkPass(state.actor.net, "parameters"),)

    def log_probs(self, actor: DensityPolicy, pairs: PairBatch) -> Float[Tensor, "n 2"]:
        """`sum_t gamma^t log pi(a_t | s_t)` of left and right, differentiable."""
        valid, mask = pairs.valid, pairs.mask
        steps = step_log_prob(
            actor,
            pairs.observation.flatten(0, 2),
            pairs.action.flatten(0, 2),
            None if mask is None else mask.flatten(0, 2),
        ).view(valid.shape)
        weight = self.config.segment_discount ** torch.arange(valid.shape[-1], device=valid.device)
        return (steps * weight * valid).sum(-1)

    def build_parts(self, generator: torch.Generator) -> tuple[DensityPolicy, Optimiser, Optimiser]:
        """The policy and the optimisers of both phases."""
        config, space = self.config, self.context.space
        normaliser = copy.deepcopy(self.context.normaliser)
        actor: DensityPolicy
        if space.is_discrete:
            actor = SoftmaxPolicy(CategoricalSpec("softmax", space, config.hidden), normaliser, generator)
        else:
            spec = ActorSpec("clipped_gaussian", space, config.hidden)
            actor = ClippedGaussianActor(spec, normaliser, generator)
        parameters: list[nn.Parameter] = list(actor.parameters())
        clone = Optimiser(parameters, config.learning_rate)
        # The mean of a Gaussian alone: a contrast of log-densities can be lowered without end by the
        # deviation. That of the clone is how far people's actions scatter; the code of CPL fixes it, too.
        contrast = Optimiser(
            actor.net.flat,
            config.learning_rate,
            schedule=config.schedule,
            total_steps=max(self.context.total_updates - config.clone_updates, 1),
        )
        return actor, clone, contrast


def step_log_prob(
    actor: DensityPolicy,
    obs: Float[Tensor, "b obs_dim"],
    action: Float[Tensor, "b act_dim"],
    mask: Bool[Tensor, "b act_dim"] | None = None,
) -> Float[Tensor, "b"]:
    """`log pi(a|s)`; of choices among those that were allowed."""
    if isinstance(actor, SoftmaxPolicy):
        return log_probability_of(actor.log_probs(obs, mask), action)
    return actor.log_prob(obs, action)


def cloning_error(actor: DensityPolicy, batch: TransitionBatch) -> Float[Tensor, ""]:
    """`-mean log pi(a|s)` of logged steps."""
    return -step_log_prob(actor, batch.observation, batch.action, batch.action_mask).mean()


def pair_accuracy(scores: Float[Tensor, "n 2"], target: Float[Tensor, "n"]) -> Float[Tensor, ""]:
    """Share of answers whose side has the larger score; equal pairs count half."""
    prefers_left = (scores[:, 0] > scores[:, 1]).to(target.dtype)
    return (prefers_left * target + (1 - prefers_left) * (1 - target)).mean()
