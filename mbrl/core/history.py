"""Observations that hold past frames and past actions, and what of them a step does not have to predict."""

import dataclasses
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.types import SpaceSpec

LAG: Final = "_lag"
"""In names of dimensions: `x_lag1` of the frame before."""


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """What an observation is made of: frames, the newest first, then the actions before them, likewise.

        [f_t, f_{t-1}, ..., f_{t-frames+1}, a_{t-1}, ..., a_{t-actions}]

    Only the newest frame of the next observation is to be predicted: the rest moves up by one place.

    Attributes:
        frames: how many, at least 1.
        actions: how many, at least 0.

    Raises:
        ValueError: a count is out of its range, or nothing is held but one frame.
    """

    frames: int
    actions: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.actions < 0 or (self.frames, self.actions) == (1, 0):
            raise ValueError(f"a history of {self.frames} frames and {self.actions} past actions is none")

    def frame_dim(self, obs_dim: int, act_dim: int) -> int:
        """Size of a frame.

        Raises:
            ValueError: an observation of `obs_dim` is not made of such frames and actions.
        """
        rest = obs_dim - self.actions * act_dim
        if rest < self.frames or rest % self.frames != 0:
            raise ValueError(
                f"{obs_dim} numbers are not {self.frames} frames and {self.actions} actions of {act_dim}"
            )
        return rest // self.frames

    def obs_dim(self, frame_dim: int, act_dim: int) -> int:
        """Size of an observation."""
        return self.frames * frame_dim + self.actions * act_dim

    def act_dim(self, inputs: int, frame_dim: int) -> int:
        """Size of an action, where an observation and an action together have `inputs` numbers.

        Raises:
            ValueError: no size gives that.
        """
        size, left = divmod(inputs - self.frames * frame_dim, self.actions + 1)
        if left != 0 or size < 1:
            raise ValueError(
                f"{inputs} numbers are not {self.frames} frames of {frame_dim}, {self.actions} past actions "
                "and an action"
            )
        return size

    def names(self, frame_names: tuple[str, ...], act_names: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the dimensions: those of the newest frame, then with `_lag1`, `_lag2`, ..."""
        lags = [f"{name}{LAG}{lag}" for lag in range(1, self.frames) for name in frame_names]
        lags += [f"{name}{LAG}{lag}" for lag in range(1, self.actions + 1) for name in act_names]
        return (*frame_names, *lags)

    def moved(
        self, obs: Float[Tensor, "*b obs_dim"], action: Float[Tensor, "*b act_dim"]
    ) -> Float[Tensor, "*b rest"]:
        """The next observation but for its newest frame, exactly."""
        act_dim = action.shape[-1]
        size = self.frame_dim(obs.shape[-1], act_dim)
        older = obs[..., : size * (self.frames - 1)]
        if self.actions == 0:
            return older
        first = size * self.frames
        before = obs[..., first : first + act_dim * (self.actions - 1)]
        return torch.cat((older, action, before), -1)


def resting_action(space: SpaceSpec) -> Float[Tensor, "act_dim"]:
    """What stands for actions before an episode: 0, or the bound that is nearest to it, environment units."""
    return torch.zeros(space.act_dim).clamp(torch.tensor(space.act_low), torch.tensor(space.act_high))
