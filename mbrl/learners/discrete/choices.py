"""What all learners over choices share: what their config says, and how their values are told. No learner."""

import dataclasses
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.learners.base import LearnerConfig
from mbrl.nets.categorical import CategoricalPolicy
from mbrl.nets.critics import ChoiceCritics
from mbrl.nets.normaliser import Normaliser
from mbrl.ops.choices import take_choice


class ChoiceLearnerConfig(LearnerConfig):
    """A learner over finitely many choices."""

    acts_on_choices: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True, slots=True)
class ChoiceValue:
    """Values of a policy over choices from networks that know all of them; a `ValueFn` with `CriticValues`.

    Attributes:
        policy: whose evaluation action `value` is the value of.
        critic: `Q_i(s, a)`.
        normaliser: of observations.
    """

    policy: CategoricalPolicy
    critic: ChoiceCritics
    normaliser: Normaliser

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a)` at the policy's evaluation action."""
        return self.action_value(obs, self.policy.act(obs))

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b n"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a)` of one-hot actions."""
        return self.action_values(obs, action).amin(0)

    @torch.no_grad()
    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b n"]
    ) -> Float[Tensor, "c b"]:
        """`Q_i(s, a)` of every critic."""
        return take_choice(self.critic(self.normaliser(obs)), action)
