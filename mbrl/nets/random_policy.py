"""The policies that know nothing."""

import dataclasses
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.core.types import SpaceSpec


@dataclasses.dataclass(frozen=True, slots=True)
class RandomPolicy:
    """Uniform in the action box, each dimension between its own bounds.

    Attributes:
        space: sizes and bounds.
    """

    space: SpaceSpec

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return self.space.act_dim

    def act(
        self, obs: Float[Tensor, "b obs_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """`lo + (hi - lo) Phi(noise)`, uniform for normal noise; the middle of the box without noise."""
        low, high = obs.new_tensor(self.space.act_low), obs.new_tensor(self.space.act_high)
        share = low.new_tensor(0.5) if noise is None else 0.5 * (1.0 + torch.erf(noise / math.sqrt(2.0)))
        return (low + (high - low) * share).clamp(low, high).expand(obs.shape[0], -1)

    def log_prob(
        self, obs: Float[Tensor, "b obs_dim"], action: Float[Tensor, "b act_dim"]
    ) -> Float[Tensor, "b"]:
        """`-A log 2`, the uniform density of the action scaled to [-1, 1]; -inf outside of the box."""
        low, high = obs.new_tensor(self.space.act_low), obs.new_tensor(self.space.act_high)
        is_inside = ((action >= low) & (action <= high)).all(dim=-1)
        inside = obs.new_full((obs.shape[0],), -self.act_dim * math.log(2.0))
        return torch.where(is_inside, inside, inside.new_tensor(-math.inf))

    def sample(
        self, obs: Float[Tensor, "b obs_dim"], count: int, noise: Float[Tensor, "k b act_dim"]
    ) -> Float[Tensor, "k b act_dim"]:
        """Draws `count` actions for each observation from `[count, b, act_dim]` standard normal noise."""
        return torch.stack([self.act(obs, noise[k]) for k in range(count)])


@dataclasses.dataclass(frozen=True, slots=True)
class RandomChoicePolicy:
    """Uniform over the choices that are allowed.

    Attributes:
        space: of choices.
    """

    space: SpaceSpec

    @property
    def act_dim(self) -> int:
        """Number of choices."""
        return self.space.act_dim

    def act(
        self,
        obs: Float[Tensor, "b obs_dim"],
        noise: Float[Tensor, "b n"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b n"]:
        """One-hot: the choice of the largest draw, which is any with equal chances; else the first.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        share = self.probs(obs, mask)
        scores = share if noise is None else noise.masked_fill(share == 0, -math.inf)
        return torch.nn.functional.one_hot(scores.argmax(-1), self.act_dim).to(obs.dtype)

    def probs(
        self, obs: Float[Tensor, "b obs_dim"], mask: Bool[Tensor, "b n"] | None = None
    ) -> Float[Tensor, "b n"]:
        """1 by the number of choices that are allowed.

        Raises:
            ValueError: a row of the mask allows nothing.
        """
        allowed = obs.new_ones((obs.shape[0], self.act_dim)) if mask is None else mask.to(obs.dtype)
        count = allowed.sum(-1, keepdim=True)
        if not bool((count > 0).all()):
            row = int((count[:, 0] == 0).nonzero()[0])
            raise ValueError(f"the mask of row {row} allows no choice: at least one must be allowed")
        return allowed / count


def random_policy(space: SpaceSpec) -> RandomPolicy | RandomChoicePolicy:
    """Uniform in the action box, or over the choices."""
    return RandomChoicePolicy(space) if space.is_discrete else RandomPolicy(space)
