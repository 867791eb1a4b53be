"""QR-DQN: Q-learning of the distribution of returns, as equally likely quantiles.

Source: Dabney et al. 2018 (arXiv:1710.10044), algorithm 1.

Departures: those of DQN; the next action is chosen by the online means (`is_double: false` is the paper's).
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
from mbrl.nets.categorical import GreedyPolicy
from mbrl.ops.quantiles import quantile_huber_loss
from mbrl.ops.targets import td_target


class QRDQNConfig(ValueLearningConfig):
    """Quantile regression Q-learning.

    Attributes:
        quantiles: equally likely returns that stand for a distribution.
        huber_width: kappa, where the error turns from a square to a line, in the learner's return units.
    """

    quantiles: Annotated[int, Field(ge=1, le=1000)] = 32
    huber_width: Annotated[float, Field(gt=0, le=1e6)] = 1.0


@dataclasses.dataclass(slots=True)
class QRDQNState(ValueLearningState[GreedyPolicy]):
    """The policy with its quantiles, target quantiles, optimiser, updates."""


@LEARNERS.register("qr_dqn", "Quantile regression DQN: the distribution of returns over choices.")
class QRDQN(ValueLearning[QRDQNConfig, QRDQNState]):
    """The QR-DQN learner: see `ValueLearning` for its arguments and its update."""

    Config: ClassVar[type[LearnerConfig]] = QRDQNConfig

    def init(self, generator: torch.Generator) -> QRDQNState:
        """Fresh networks and optimisers."""
        policy = self.build_policy("greedy", generator, quantiles=self.config.quantiles)
        optimiser = Optimiser(policy.critic.net.flat, self.config.learning_rate)
        return QRDQNState(policy, self.make_target(policy), optimiser)

    def value_loss(
        self, state: QRDQNState, batch: TransitionBatch
    ) -> tuple[Float[Tensor, "e b n"], Float[Tensor, ""]]:
        """Means of all choices at the batch, and the quantile error of the logged ones."""
        target = self.quantile_target(state, batch)
        quantiles = state.policy.critic.quantiles(state.policy.normaliser(batch.observation))
        chosen = (quantiles * batch.action[..., None]).sum(-2)
        return quantiles.mean(-1), quantile_huber_loss(chosen, target, width=self.config.huber_width)

    @torch.no_grad()
    def quantile_target(self, state: QRDQNState, batch: TransitionBatch) -> Float[Tensor, "b q"]:
        """`r + g^n (1 - terminated) theta'_k(s', a')`, the critic of the least mean; without gradients."""
        obs_n = state.policy.normaliser(batch.next_observation)
        quantiles = state.target_critic.quantiles(obs_n)
        means = quantiles.mean(-1)
        choice = self.next_choice(state, obs_n, means.amin(0), batch.next_action_mask)
        # [e, b, q] of the next choice, then the member whose mean is the least, row by row.
        chosen = (quantiles * choice[..., None]).sum(-2)
        least = chosen.mean(-1).argmin(0)
        following = chosen.gather(0, least[None, :, None].expand(1, -1, chosen.shape[-1]))[0]
        reward, ended = batch.reward[:, None], batch.terminated[:, None]
        return td_target(
            reward.expand_as(following),
            ended.expand_as(following),
            following,
            discount=self.bootstrap_discount,
        )
