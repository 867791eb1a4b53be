"""DQN: Q-learning with a target network; switches for double targets, dueling heads, several steps.

Sources: Mnih et al. 2015 (Nature 518); van Hasselt et al. 2016 (arXiv:1509.06461); Wang et al. 2016
(arXiv:1511.06581); Hessel et al. 2018 (arXiv:1710.02298) for returns of several steps.

Departures:
- made for vectors, not for images: perceptrons, Adam, and target values that follow by averaging;
- rewards are in a unit of the log instead of clipped to [-1, 1];
- the dueling streams share their hidden layers.
"""

import dataclasses
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from mbrl.core.types import Metrics, TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, Optimiser
from mbrl.learners.discrete.value_learning import ValueLearning, ValueLearningConfig, ValueLearningState
from mbrl.nets.categorical import GreedyPolicy

Share = Annotated[float, Field(ge=0, le=1)]


class DQNConfig(ValueLearningConfig):
    """Q-learning over choices.

    Attributes:
        epsilon_start: share of choices that the policy draws evenly at the first update, when it acts with
            noise: exploration in a simulator. Its evaluation action is greedy in any case.
        epsilon_end: that share from `epsilon_updates` on, on a straight line in between.
        epsilon_updates: length of the line.
    """

    epsilon_start: Share = 0.0
    epsilon_end: Share = 0.0
    epsilon_updates: Annotated[int, Field(ge=1, le=1_000_000_000)] = 10_000


@dataclasses.dataclass(slots=True)
class DQNState(ValueLearningState[GreedyPolicy]):
    """The policy with its values, target values, optimiser, updates."""


@LEARNERS.register("dqn", "Deep Q-learning over choices: double, dueling, several steps; offline or online.")
class DQN(ValueLearning[DQNConfig, DQNState]):
    """The DQN learner: see `ValueLearning` for its arguments and its update."""

    Config: ClassVar[type[LearnerConfig]] = DQNConfig

    def init(self, generator: torch.Generator) -> DQNState:
        """Fresh networks and optimisers."""
        policy = self.build_policy("greedy", generator)
        optimiser = Optimiser(policy.critic.net.flat, self.config.learning_rate)
        state = DQNState(policy, self.make_target(policy), optimiser)
        self._explore(state)
        return state

    def update(self, state: DQNState, batch: TransitionBatch, generator: torch.Generator) -> Metrics:
        """One step of the values; the share of even draws moves along its line."""
        metrics = super().update(state, batch, generator)
        self._explore(state)
        return metrics

    def _explore(self, state: DQNState) -> None:
        config = self.config
        way = min(state.updates / config.epsilon_updates, 1.0)
        # Filled in place: whoever holds the policy explores as far as the updates are.
        state.policy.epsilon.fill_(config.epsilon_start + way * (config.epsilon_end - config.epsilon_start))
