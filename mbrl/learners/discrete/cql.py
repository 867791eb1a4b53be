"""Discrete CQL: Q-learning whose values are pressed down where the log has no choice.

Source: Kumar et al. 2020 (arXiv:2006.04779), eq. 4 (CQL(H)), whose log-sum-exp is exact over choices; Yu et
al. 2021 (arXiv:2102.08363), eq. 2, for imagined rows.

Departures: those of DQN; the paper builds on QR-DQN.
"""

import dataclasses
from typing import Annotated, ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from mbrl.core.types import TransitionBatch
from mbrl.learners.base import LEARNERS, LearnerConfig, Optimiser
from mbrl.learners.discrete.value_learning import ValueLearning, ValueLearningConfig, ValueLearningState
from mbrl.nets.categorical import GreedyPolicy
from mbrl.ops.choices import forbid, take_choice, without_empty
from mbrl.ops.losses import masked_mean

States: TypeAlias = Literal["all", "model"]


class DiscreteCQLConfig(ValueLearningConfig):
    """Conservative Q-learning over choices.

    Attributes:
        conservative_weight: alpha, against the error of the values, both in the learner's units.
        conservative_states: where the log-sum-exp is taken: `all` rows of a batch, or the imagined ones
            (`model`) where there are some.
    """

    conservative_weight: Annotated[float, Field(ge=0, le=1e4)] = 1.0
    conservative_states: States = "all"

    @property
    def is_conservative(self) -> bool:
        """Unless the term has no weight."""
        return self.conservative_weight > 0


@dataclasses.dataclass(slots=True)
class DiscreteCQLState(ValueLearningState[GreedyPolicy]):
    """The policy with its values, target values, optimiser, updates."""


@LEARNERS.register("discrete_cql", "Conservative Q-learning over choices, with the exact log-sum-exp.")
class DiscreteCQL(ValueLearning[DiscreteCQLConfig, DiscreteCQLState]):
    """The discrete CQL learner: see `ValueLearning` for its arguments and its update."""

    Config: ClassVar[type[LearnerConfig]] = DiscreteCQLConfig

    def init(self, generator: torch.Generator) -> DiscreteCQLState:
        """Fresh networks and optimisers."""
        policy = self.build_policy("greedy", generator)
        optimiser = Optimiser(policy.critic.net.flat, self.config.learning_rate)
        return DiscreteCQLState(policy, self.make_target(policy), optimiser)

    def regulariser(
        self, state: DiscreteCQLState, batch: TransitionBatch, values: Float[Tensor, "e b n"]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """`alpha sum_i (E_s [log sum_a exp Q_i(s, a)] - E_D [Q_i(s, a)])`, and the mean gap."""
        del state
        # Over the allowed choices: a forbidden one is never taken, and needs no pressure.
        soft = torch.logsumexp(forbid(values, without_empty(batch.action_mask)), -1)
        rows = torch.ones_like(batch.from_model)
        if self.config.conservative_states == "model":
            # Where nothing was imagined yet the term stays on all rows: a mean over none would switch it off.
            rows = batch.from_model | ~batch.from_model.any()
        # The data term holds up logged choices only: lifting imagined ones would undo the pressure on them.
        logged = masked_mean(take_choice(values, batch.action), ~batch.from_model)
        gap = masked_mean(soft, rows) - logged
        return self.config.conservative_weight * gap.sum(), {"critic/conservative_gap": gap.detach().mean()}
