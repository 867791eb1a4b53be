"""A policy as a table: probabilities of every action in every state."""

import dataclasses

import torch
from jaxtyping import Bool, Float
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

    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """`[b, A]` float64; of what a mask allows as much more, and all alike where it allows nothing of it.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        return among_allowed(self.table[self.model.state(obs)], mask)

    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b act_dim"] | None = None,
        mask: Bool[Tensor, "b act_dim"] | None = None,
    ) -> Float[Tensor, "b act_dim"]:
        """The likeliest choice, one-hot; with noise a draw by inversion from its first column.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        chances = self.probs(obs, mask)
        choice = chances.argmax(-1)
        if noise is not None:
            uniform = standard_normal_cdf(noise[:, :1])
            choice = (uniform > chances.cumsum(-1)).sum(-1).clamp_max(self.act_dim - 1)
        return torch.nn.functional.one_hot(choice, self.act_dim).to(obs.dtype)


def among_allowed(chances: Float[Tensor, "b A"], mask: Bool[Tensor, "b A"] | None) -> Float[Tensor, "b A"]:
    """Probabilities of what is allowed, in the same proportions; equal ones where none of it had any.

    Raises:
        ValueError: a row of the mask allows nothing.
    """
    if mask is None:
        return chances
    if not bool(mask.any(-1).all()):
        row = int((~mask.any(-1)).nonzero()[0])
        raise ValueError(f"the mask of row {row} allows no choice: at least one must be allowed")
    left = chances * mask
    total = left.sum(-1, keepdim=True)
    equal = mask.to(chances.dtype) / mask.sum(-1, keepdim=True)
    return torch.where(total > 0, left / torch.where(total > 0, total, 1.0), equal)
