"""What learners share whose value is the least of N critics. No learner by itself."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.protocols import Policy
from mbrl.nets.critics import CriticEnsemble


@dataclasses.dataclass(frozen=True, slots=True)
class LeastCriticValue:
    """The least online critic, at the policy's evaluation action or at a given one."""

    actor: Policy
    critic: CriticEnsemble

    @torch.no_grad()
    def value(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, pi(s))`, pi without noise."""
        return self.action_value(obs, self.actor.act(obs))

    @torch.no_grad()
    def action_value(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`min_i Q_i(s, a)`."""
        return self.critic(obs, self.critic.scale(action)).amin(0)


def critic_metrics(values: Float[Tensor, "n b"], loss: Float[Tensor, ""]) -> dict[str, Tensor]:
    """Level, maximum and disagreement of the critics at a batch, beside their Bellman error."""
    values = values.detach()
    return {
        "critic/loss": loss.detach(),
        "critic/value": values.mean(),
        "critic/value_max": values.max(),
        "critic/disagreement": values.std(0, correction=0).mean(),
    }
