"""Small worlds to plan in, each a formula, with priors and critics that are formulas too."""

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from mbrl.planning.problem.problem import StepOut

Formula: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
"""`(obs [r, o], action [r, a], member [r]) -> s' [r, o], reward [r], terminated [r], uncertainty [r]`."""


@dataclasses.dataclass
class World:
    """A step function from a formula, with additive noise; remembers what it was asked.

    Attributes:
        formula: of one step.
        members: of the ensemble that it plays.
        noise_std: deviation of the noise on s'.
        actions: of every call.
        asked: members of every call that named some.
    """

    formula: Formula
    members: int = 1
    noise_std: float = 0.0
    actions: list[Tensor] = dataclasses.field(default_factory=list[Tensor])
    asked: list[Tensor] = dataclasses.field(default_factory=list[Tensor])

    @property
    def ensemble_size(self) -> int:
        """Number of members."""
        return self.members

    def __call__(
        self, obs: Tensor, action: Tensor, *, member: Tensor | None = None, noise: Tensor | None = None
    ) -> StepOut:
        """See `mbrl.planning.problem.problem.StepFn`."""
        self.actions.append(action.clone())
        if member is not None:
            self.asked.append(member.clone())
            return self._one(obs, action, member, noise)
        rows = torch.zeros(len(obs), dtype=torch.int64, device=obs.device)
        every = [self._one(obs, action, rows + e, noise) for e in range(self.members)]
        return StepOut(
            torch.stack([out.next_observation for out in every]),
            torch.stack([out.reward for out in every]),
            torch.stack([out.terminated for out in every]),
            every[0].uncertainty,
        )

    def _one(self, obs: Tensor, action: Tensor, member: Tensor, noise: Tensor | None) -> StepOut:
        next_obs, reward, terminated, uncertainty = self.formula(obs, action, member)
        if noise is not None:
            next_obs = next_obs + self.noise_std * noise[:, :-1]
        return StepOut(next_obs, reward, terminated, uncertainty)


@dataclasses.dataclass
class LinearPrior:
    """`a = clip(gain s + bias)`, plus `std` times the noise.

    Attributes:
        gain: `[act_dim, obs_dim]`.
        bias: of every coordinate.
        std: of the noise.
    """

    gain: Tensor
    bias: float = 0.0
    std: float = 0.3

    @property
    def act_dim(self) -> int:
        """Size of an action."""
        return len(self.gain)

    @property
    def is_discrete(self) -> bool:
        """Actions lie in a box."""
        return False

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """The mode, or a draw."""
        mode = obs @ self.gain.T.to(obs.dtype) + self.bias
        return (mode if noise is None else mode + self.std * noise).clamp(-1.0, 1.0)

    def sample(self, obs: Tensor, noise: Tensor, *, spread: float = 1.0) -> Tensor:
        """Draws."""
        return torch.stack([self.act(obs, spread * draw) for draw in noise])

    def logits(self, obs: Tensor) -> Tensor:
        """There are none.

        Raises:
            AssertionError: always.
        """
        del obs
        raise AssertionError("continuous actions have no logits")


@dataclasses.dataclass
class FixedPrior:
    """A policy over discrete actions that is the same in every state.

    Attributes:
        preferences: log-probabilities up to a constant.
    """

    preferences: tuple[float, ...]

    @property
    def act_dim(self) -> int:
        """Number of actions."""
        return len(self.preferences)

    @property
    def is_discrete(self) -> bool:
        """Actions are one-hot vectors."""
        return True

    def logits(self, obs: Tensor) -> Tensor:
        """The preferences, row by row."""
        return obs.new_tensor(self.preferences).expand(len(obs), self.act_dim)

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        """The preferred action, or a draw."""
        logits = self.logits(obs)
        best = (logits if noise is None else logits + noise).argmax(-1)
        return torch.nn.functional.one_hot(best, self.act_dim).to(obs.dtype)

    def sample(self, obs: Tensor, noise: Tensor, *, spread: float = 1.0) -> Tensor:
        """There are none.

        Raises:
            AssertionError: always.
        """
        del obs, noise, spread
        raise AssertionError("discrete actions are not sampled from a density")


@dataclasses.dataclass
class FormulaLeaf:
    """Critics from formulas of the state; Q takes `|a|^2` off, so that it prefers one action.

    Attributes:
        values: one formula a critic, `[r, o]` to `[r]`.
    """

    values: list[Callable[[Tensor], Tensor]]

    def value(self, obs: Tensor) -> Tensor:
        """`[c, r]`."""
        return torch.stack([value(obs) for value in self.values])

    def action_value(self, obs: Tensor, action: Tensor) -> Tensor:
        """`[c, r]`."""
        return self.value(obs) - action.square().sum(-1)
