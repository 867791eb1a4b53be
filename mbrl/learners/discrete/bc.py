"""Discrete behaviour cloning: the cross-entropy of logged choices.

Source: the common baseline (Pomerleau 1989), a classifier of choices.

Departures: observations are standardised inside the network; where the log says what was allowed, likelihoods
are among the allowed choices.
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
from mbrl.learners.discrete.choices import ChoiceLearnerConfig
from mbrl.nets.categorical import CategoricalSpec, SoftmaxPolicy
from mbrl.nets.passes import NetworkPass
from mbrl.nets.widths import Hidden
from mbrl.ops.choices import log_probabilities, log_probability_of


class DiscreteBCConfig(ChoiceLearnerConfig):
    """Cloning of choices.

    Attributes:
        hidden: widths of the hidden layers.
        learning_rate: Adam rate.
        schedule: course of the rate over the run.
        logit_coef: weight of the mean squared logit, which keeps probabilities from 0 and 1.
    """

    hidden: Hidden = (256, 256)
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-4
    schedule: Schedule = "constant"
    logit_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.01

    @property
    def reads_rewards(self) -> bool:
        """A clone reads actions alone."""
        return False


@dataclasses.dataclass(slots=True)
class DiscreteBCState(LearnerState):
    """Network and optimiser."""

    actor: SoftmaxPolicy
    optimiser: Optimiser


@LEARNERS.register("discrete_bc", "Behaviour cloning of choices: the likelihood of what was logged.")
class DiscreteBC:
    """The learner that clones choices.

    Args:
        config: hyper-parameters.
        context: the task's sizes, the normaliser, the length of the run.
    """

    Config: ClassVar[type[LearnerConfig]] = DiscreteBCConfig

    def __init__(self, config: DiscreteBCConfig, context: LearnerContext) -> None:
        self.config, self.context = config, context

    def init(self, generator: torch.Generator) -> DiscreteBCState:
        """Fresh network and optimiser."""
        config, context = self.config, self.context
        spec = CategoricalSpec("softmax", context.space, config.hidden)
        actor = SoftmaxPolicy(spec, copy.deepcopy(context.normaliser), generator)
        optimiser = Optimiser(
            actor.net.flat,
            config.learning_rate,
            schedule=config.schedule,
            total_steps=context.total_updates,
        )
        return DiscreteBCState(actor, optimiser)

    def update(self, state: DiscreteBCState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One gradient step; draws nothing."""
        del generator
        cloning, regulariser = self.losses(state, batch)
        state.optimiser.descend(cloning + self.config.logit_coef * regulariser)
        return {"policy/loss": cloning.detach()}

    def losses(
        self, state: DiscreteBCState, batch: TransitionBatch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """`-mean log pi(a|s)` and the mean squared logit."""
        logits = state.actor.preferences(batch.observation)
        log_probs = log_probabilities(logits, batch.action_mask)
        return -log_probability_of(log_probs, batch.action).mean(), logits.square().mean()

    def policy(self, state: DiscreteBCState) -> SoftmaxPolicy:
        """The clone."""
        return state.actor

    def value(self, state: DiscreteBCState) -> None:
        """A clone estimates no values."""
        del state

    def passes(self, state: DiscreteBCState) -> tuple[NetworkPass, ...]:
        """The actor is trained."""
        return (NetworkPass(state.actor.net, "parameters"),)
