"""The learned termination head: when does the task end?"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP


class TerminationHead(nn.Module):
    """Probability that the task ends on entering s', from `(s, a, s')`; implements `TerminationFn`.

    Training weights terminated rows by w, which multiplies the fitted odds by w; the head takes that out
    again: `p = mean_e sigmoid(logit_e - log w)`.

    Args:
        net: `in -> 1` logit; `in` is that of `inputs`.
        inputs: normaliser of `(s, a, s')`, or of `(s, a)` where no terminal successor was logged.
        positive_weight: w.
        reads_successor: whether s' is among the inputs.
    """

    log_weight: Tensor

    def __init__(
        self, net: StackedMLP, *, inputs: Normaliser, positive_weight: float, reads_successor: bool
    ) -> None:
        super().__init__()
        self.net, self.inputs, self.reads_successor = net, inputs, reads_successor
        self.register_buffer("log_weight", torch.tensor(math.log(positive_weight)))

    def forward(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """Corrected probability, averaged over members; raw units in."""
        parts = (obs, action, next_obs) if self.reads_successor else (obs, action)
        logits = self.net(self.inputs(torch.cat(parts, -1))).squeeze(-1)
        return torch.sigmoid(logits - self.log_weight).mean(0)

    def select(self, members: Int[Tensor, "m"]) -> "TerminationHead":
        """A smaller head with frozen copies of the given members, for inference."""
        chosen = TerminationHead(
            self.net.select(members),
            inputs=self.inputs,
            positive_weight=1.0,
            reads_successor=self.reads_successor,
        )
        chosen.log_weight.copy_(self.log_weight)
        return chosen.requires_grad_(requires_grad=False)


class NeverTerminates:
    """The head for data without a terminated row: probability 0; implements `TerminationFn`."""

    def __call__(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """Zeros."""
        del action, next_obs
        return obs.new_zeros(len(obs))
