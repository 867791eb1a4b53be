"""What learners with critics share: their value functions and their step. No learner by itself."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.core.protocols import Policy
from mbrl.core.types import TransitionBatch
from mbrl.learners.base import Optimiser
from mbrl.nets.critics import CriticEnsemble, StateValue
from mbrl.ops.losses import critic_loss
from mbrl.ops.targets import clipped_value


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyValue:
    """Values of a policy's own actions: `w min_i Q_i + (1 - w) max_i Q_i`.

    Attributes:
        policy: acts deterministically.
        critic: Q.
        minimum_weight: w; 1 takes the least critic.
    """

    policy: Policy
    critic: CriticEnsemble
    minimum_weight: float = 1.0

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """Value of the policy's deterministic action."""
        return self.action_value(obs, self.policy.act(obs))

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """Value of `action`, environment units."""
        # What is told outside is the value that the learner's targets
        # use: with another mixture the two would differ.
        return clipped_value(self.action_values(obs, action), minimum_weight=self.minimum_weight)

    @torch.no_grad()
    def action_values(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "c b"]:
        """`Q_i(s, a)` of every critic."""
        # Critics know actions in [-1, 1]; everybody else speaks environment units.
        return self.critic(obs, self.critic.scale(action))


@dataclasses.dataclass(frozen=True, slots=True)
class StateValueAlone:
    """V of a learner that has no Q; a `StateValueFn`.

    Attributes:
        critic: V.
    """

    critic: StateValue

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """V(s), in the unit of what the learner sums up."""
        return self.critic(obs)


def regress_critics(
    critic: CriticEnsemble,
    optimiser: Optimiser,
    batch: TransitionBatch,
    target: Float[Tensor, "b"],
    *,
    is_included: Bool[Tensor, "b"] | None = None,
) -> dict[str, Tensor]:
    """One step of the critics towards `target` at the batch's actions; returns their metrics."""
    # At the batch's own actions: `target` was made without gradients, so only these values move.
    values = critic(batch.observation, critic.scale(batch.action))
    loss = critic_loss(values, target, is_included=is_included)
    optimiser.descend(loss)
    return critic_metrics(values, loss)


def critic_metrics(values: Float[Tensor, "n b"], loss: Float[Tensor, ""]) -> dict[str, Tensor]:
    """Level, maximum and disagreement of the critics at a batch, beside their Bellman error."""
    # Metrics outlive the update, and must not keep its graph.
    values = values.detach()
    return {
        "critic/loss": loss.detach(),
        "critic/value": values.mean(),
        "critic/value_max": values.max(),
        # Population deviation: a single critic has 0, where the sample deviation would be NaN.
        "critic/disagreement": values.std(0, correction=0).mean(),
    }
