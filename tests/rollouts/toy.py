"""Hand-made models and policies whose rollouts can be worked out on paper."""

import dataclasses
import math

import torch

from mbrl.core.types import DynamicsPosterior
from mbrl.rollouts.config import RolloutConfig
from mbrl.rollouts.generate import Imagination, generate_rollouts
from mbrl.rollouts.steps import Rollouts

OBS_DIM, ACT_DIM = 2, 1
A = torch.tensor([[0.9, 0.2], [-0.1, 0.8]])
B = torch.tensor([[0.0], [1.0]])
GAIN = torch.tensor([[-0.3, -0.4]])


class LinearPolicy:
    """`a = K s + std * noise`."""

    act_dim = ACT_DIM

    def __init__(self, std: float = 0.0) -> None:
        self.std = std

    def act(self, obs, noise=None):
        return obs @ GAIN.T + (0.0 if noise is None else self.std * noise)


class LinearModel:
    """Member i predicts `s' = A s + B a + i * shift`, `r = s_0 + 100 i`, all with one standard deviation."""

    def __init__(self, members: int = 3, *, std: float = 0.0, shift: float = 0.0) -> None:
        self.ensemble_size, self.std, self.shift = members, std, shift

    def predict(self, obs, action):
        offset = torch.arange(self.ensemble_size, dtype=obs.dtype)[:, None]
        mean = (obs @ A.T + action @ B.T).expand(self.ensemble_size, *obs.shape) + self.shift * offset[
            ..., None
        ]
        reward = obs[:, 0] + 100 * offset
        return DynamicsPosterior(
            mean=mean,
            variance=torch.full_like(mean, self.std**2),
            reward_mean=reward,
            reward_variance=torch.full_like(reward, self.std**2),
            delta_scale=torch.ones(obs.shape[1]),
            reward_scale=torch.tensor(1.0),
        )

    def predict_member(self, obs, action, member):
        posterior, row = self.predict(obs, action), torch.arange(len(obs))
        return (
            posterior.mean[member, row],
            posterior.variance[member, row],
            posterior.reward_mean[member, row],
            posterior.reward_variance[member, row],
        )


class BrokenModel(LinearModel):
    """Returns a NaN for rows whose first coordinate is above a limit."""

    limit = 100.0
    broken_field = "mean"

    def predict(self, obs, action):
        posterior = super().predict(obs, action)
        value = getattr(posterior, self.broken_field).clone()
        value[:, obs[:, 0] > self.limit] = math.nan
        return dataclasses.replace(posterior, **{self.broken_field: value})


def never(obs, action, next_obs):
    return torch.zeros(len(obs))


def behind_wall(obs, action, next_obs):
    return (next_obs[:, 0] > 1.0).float()


def first_coordinate(posterior, context=None):
    """Uncertainty of a toy: how far member 0 predicts the first coordinate to be."""
    return posterior.mean[0, :, 0].abs()


def starts(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, OBS_DIM, generator=torch.Generator().manual_seed(seed))


def roll(
    imagination: Imagination, start: torch.Tensor, *, std: float = 0.0, seed: int = 0, **config
) -> Rollouts:
    return generate_rollouts(
        imagination,
        LinearPolicy(std),
        start,
        config=RolloutConfig(**config),
        generator=torch.Generator().manual_seed(seed),
    )


def drift(members: int = 1, **kwargs) -> LinearModel:
    """A toy that walks right by `shift` a step: `s' = s + 0.4` in the first coordinate."""

    class Drift(LinearModel):
        def predict(self, obs, action):
            posterior = super().predict(obs, action)
            mean = obs + torch.tensor([0.4, 0.0])
            noise = posterior.mean - posterior.mean[:1]
            return dataclasses.replace(posterior, mean=mean + noise)

    return Drift(members, **kwargs)


def flagged_toy(flagged: str, **config) -> Rollouts:
    """One row at 0 that walks by 0.4; the uncertainty |s'_0| exceeds 1 at its third step."""
    imagination = Imagination(drift(), never, first_coordinate, threshold=1.0)
    return roll(imagination, torch.zeros(1, 2), horizon=5, flagged=flagged, **config)
