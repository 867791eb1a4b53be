"""A policy as a table: probabilities of every action in every state."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.dynamics.tabular.model import TabularDynamics
from mbrl.ops.gaussian import standard_normal_cdf


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class TabularPolicy:
    """Acts by the state that an observation is, or is nearest to; implements `DiscretePolicy`.

    Attributes:
        model: knows the states.
        table: `[S, A]` float64 probabilities; rows sum to 1.
    """

    model: TabularDynamics
    table: Float[Tensor, "S A"]

    @property
    def act_dim(self) -> int:
        """A, the choices."""
        return self.table.shape[1]

    def probs(self, obs: Float[Tensor, "b obs_dim"]) -> Float[Tensor, "b act_dim"]:
        """`[b, A]` float64."""
        return self.table[self.model.state(obs)]

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """The likeliest choice, one-hot; with noise a draw by inversion from its first column."""
        chances = self.probs(obs)
        choice = chances.argmax(-1)
        if noise is not None:
            uniform = standard_normal_cdf(noise[:, :1])
            choice = (uniform > chances.cumsum(-1)).sum(-1).clamp_max(self.act_dim - 1)
        return torch.nn.functional.one_hot(choice, self.act_dim).to(obs.dtype)
