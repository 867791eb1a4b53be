"""The range of the data, to which imagined steps may be clipped."""

import dataclasses

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mbrl.core.types import TransitionBatch
from mbrl.data.normaliser import measure_moments


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """Range of the data.

    Attributes:
        obs_low: `[obs_dim]`.
        obs_high: `[obs_dim]`.
        reward_low: `[]`.
        reward_high: `[]`.
        varies: `[obs_dim + 1]`, which coordinates of s', then whether the reward, are no constants of the
            data: the noise that a model has around one is clipped, and leaves no data.
    """

    obs_low: Float[Tensor, "obs_dim"]
    obs_high: Float[Tensor, "obs_dim"]
    reward_low: Float[Tensor, ""]
    reward_high: Float[Tensor, ""]
    varies: Bool[Tensor, "k"]

    @classmethod
    def around(cls, transitions: TransitionBatch, *, margin: float = 0.0) -> "Box":
        """Range of logged observations, successors and rewards.

        Args:
            transitions: logged steps.
            margin: by which each side of the observations is moved out, in widths of their range.
        """
        both = torch.cat([transitions.observation, transitions.next_observation])
        low, high = both.amin(0), both.amax(0)
        # In widths of each dimension, so that a margin means the same for all; a constant one gets none.
        spare = margin * (high - low)
        reward = transitions.reward
        columns = (both.cpu().numpy(), reward[:, None].cpu().numpy())
        constant = np.concatenate([measure_moments(column).is_constant for column in columns])
        varies = torch.from_numpy(~constant).to(both.device)
        return cls(low - spare, high + spare, reward.min(), reward.max(), varies)

    @classmethod
    def unlimited(cls, obs_dim: int) -> "Box":
        """All of space."""
        infinite = torch.full((obs_dim + 1,), torch.inf)
        obs, reward = infinite[:-1], infinite[-1]
        return cls(-obs, obs, -reward, reward, torch.ones(obs_dim + 1, dtype=torch.bool))

    def clip(
        self, obs: Float[Tensor, "b obs_dim"], reward: Float[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b obs_dim"], Float[Tensor, "b"]]:
        """The nearest point of the box; a NaN stays one."""
        # What is clipped is counted by the caller, and infinities
        # are looked for before: clipped they look sound.
        return obs.clamp(self.obs_low, self.obs_high), reward.clamp(self.reward_low, self.reward_high)
