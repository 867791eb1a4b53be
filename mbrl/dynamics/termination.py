"""The learned termination head: when does the task end?"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mbrl.nets.encoding import PiecewiseLinearEncoding
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP


class TerminationHead(nn.Module):
    """Probability that the task ends on entering s', from `(s, a, s')`; implements `TerminationFn`.

    Training weights terminated rows by w, which multiplies the fitted odds by w; the head takes that out
    again: `p = mean_e sigmoid(logit_e - log w)`. Tasks end at sharp thresholds of a few coordinates, which
    the encoding lets a small network see.

    Args:
        net: encoded inputs to a logit.
        inputs: normaliser of `(s, a, s')`, or of `(a, s)` where no terminal successor was logged.
        encoding: of the normalised observation that stands last among the inputs.
        positive_weight: w.
        reads_successor: whether s' is among the inputs.
    """

    log_weight: Tensor

    def __init__(
        self,
        net: StackedMLP,
        *,
        inputs: Normaliser,
        encoding: PiecewiseLinearEncoding,
        positive_weight: float,
        reads_successor: bool,
    ) -> None:
        super().__init__()
        self.net, self.inputs, self.encoding = net, inputs, encoding
        self.reads_successor = reads_successor
        # A buffer: the weight belongs to the fit and is stored with it.
        self.register_buffer("log_weight", torch.tensor(math.log(positive_weight)))

    def forward(
        self,
        obs: Float[Tensor, "b obs_dim"],
        action: Float[Tensor, "b act_dim"],
        next_obs: Float[Tensor, "b obs_dim"],
    ) -> Float[Tensor, "b"]:
        """Corrected probability, averaged over members; raw units in."""
        # The encoded observation has to stand last: s' where it is read, else s.
        parts = (obs, action, next_obs) if self.reads_successor else (action, obs)
        # Weighting terminated rows by w multiplies the odds by w: subtracting log w gives the true ones back.
        # The mean is over probabilities, since the members are a mixture.
        return torch.sigmoid(self.logits(self.inputs(torch.cat(parts, -1))) - self.log_weight).mean(0)

    def logits(self, inputs_n: Float[Tensor, "*e b in"]) -> Float[Tensor, "m b"]:
        """`[m, b]`, each member's weighted log-odds; inputs normalised, shared or one batch a member."""
        return self.net(self.encoding(inputs_n)).squeeze(-1)

    def select(self, members: Int[Tensor, "m"]) -> "TerminationHead":
        """A smaller head with frozen copies of the given members, for inference."""
        chosen = TerminationHead(
            self.net.select(members),
            inputs=self.inputs,
            encoding=self.encoding,
            positive_weight=1.0,
            reads_successor=self.reads_successor,
        )
        # The logarithm is copied as it is: exp and log would not return every bit.
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
