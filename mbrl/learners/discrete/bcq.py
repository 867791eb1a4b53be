"""Discrete BCQ: Q-learning over the choices that a clone of the log makes often enough.

Source: Fujimoto et al. 2019b (arXiv:1910.01708), eq. 7 and 8, and its code (github.com/sfujim/BCQ,
discrete_BCQ, regular settings).

Departures:
- value and clone are two networks; the code gives them common layers for images alone as well;
- observations are standardised inside the networks.
"""

import dataclasses
from typing import Annotated, ClassVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, Optimiser
from mbrl.learners.discrete.value_learning import ValueLearning, ValueLearningConfig, ValueLearningState
from mbrl.nets.categorical import FilteredGreedyPolicy
from mbrl.nets.passes import NetworkPass
from mbrl.ops.choices import log_probabilities, log_probability_of
from mbrl.ops.losses import masked_mean


class DiscreteBCQConfig(ValueLearningConfig):
    """Batch-constrained Q-learning over choices.

    Attributes:
        threshold: tau of the paper, least probability under the clone as a share of the likeliest choice's;
            0 is Q-learning, 1 the clone.
        logit_coef: weight of the clone's mean squared logit, which keeps its probabilities from 0 and 1.
    """

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.3
    logit_coef: Annotated[float, Field(ge=0, le=1e4)] = 0.01


@dataclasses.dataclass(slots=True)
class DiscreteBCQState(ValueLearningState[FilteredGreedyPolicy]):
    """The policy with its values and its clone, target values, optimiser of both, updates."""


@LEARNERS.register("discrete_bcq", "BCQ over choices: the best of those that a clone of the log makes often.")
class DiscreteBCQ(ValueLearning[DiscreteBCQConfig, DiscreteBCQState]):
    """The discrete BCQ learner: see `ValueLearning` for its arguments and its update."""

    Config: ClassVar[type[LearnerConfig]] = DiscreteBCQConfig

    def init(self, generator: torch.Generator) -> DiscreteBCQState:
        """Fresh networks and optimisers."""
        policy = self.build_policy("filtered_greedy", generator, threshold=self.config.threshold)
        assert isinstance(policy, FilteredGreedyPolicy)
        # One Adam for both, as in the code; neither's gradient reaches the other.
        optimiser = Optimiser([policy.critic.net.flat, policy.clone.flat], self.config.learning_rate)
        return DiscreteBCQState(policy, self.make_target(policy), optimiser)

    def passes(self, state: DiscreteBCQState) -> tuple[NetworkPass, ...]:
        """Those of the base; the clone at s' says what is supported, and is trained at s."""
        return (
            *super().passes(state),
            NetworkPass(state.policy.clone),
            NetworkPass(state.policy.clone, "parameters"),
        )

    def regulariser(
        self, state: DiscreteBCQState, batch: TransitionBatch, values: Float[Tensor, "e b n"]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`-mean log clone(a|s) + logit_coef mean logit^2`, on logged rows."""
        del values
        logits = state.policy.clone(state.policy.normaliser(batch.observation))[0]
        log_prob = log_probability_of(log_probabilities(logits, batch.action_mask), batch.action)
        # Logged rows only: a clone of imagined choices would follow the policy out of the data.
        cloning = -masked_mean(log_prob, ~batch.from_model)
        loss = cloning + self.config.logit_coef * logits.square().mean()
        return loss, {"clone/loss": cloning.detach()}
