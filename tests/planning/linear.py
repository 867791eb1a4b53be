"""Linear members with known errors, a linear policy and quadratic critics: everything by hand."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from mbrl.core.types import DynamicsPosterior, Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo

SPACE = SpaceSpec(obs_dim=1, act_dim=1, act_low=(-2.0,), act_high=(2.0,))
DECAY, GAIN, COST = 0.9, 0.5, -1.0


@dataclasses.dataclass
class LinearModel:
    """`s' = 0.9 s + 0.5 a + shift_e`, `r = -s^2 + bonus_e |a|`, deviation `std`."""

    shifts: tuple[float, ...] = (0.0,)
    bonuses: tuple[float, ...] = (0.0,)
    std: float = 0.25
    asked: list[int] = dataclasses.field(default_factory=list[int])

    @property
    def ensemble_size(self) -> int:
        return len(self.shifts)

    def predict(self, obs: Tensor, action: Tensor) -> DynamicsPosterior:
        self.asked.append(len(obs) * self.ensemble_size)
        mean = DECAY * obs + GAIN * action + torch.tensor(self.shifts, dtype=obs.dtype)[:, None, None]
        bonus = torch.tensor(self.bonuses, dtype=obs.dtype)[:, None]
        reward = COST * obs[:, 0].square() + bonus * action[:, 0].abs()
        variance = self.std**2
        return DynamicsPosterior(
            mean, torch.full_like(mean, variance), reward, torch.full_like(reward, variance),
            torch.ones(1), torch.tensor(1.0),
        )  # fmt: skip

    def predict_member(
        self, obs: Tensor, action: Tensor, member: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        posterior = self.predict(obs, action)
        self.asked[-1] = len(obs)
        rows = torch.arange(len(obs))
        return (
            posterior.mean[member, rows], posterior.variance[member, rows],
            posterior.reward_mean[member, rows], posterior.reward_variance[member, rows],
        )  # fmt: skip


@dataclasses.dataclass
class LinearPolicy:
    """`a = clip(-0.4 s)`, without a density."""

    gain: float = -0.4

    @property
    def act_dim(self) -> int:
        return 1

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        del noise
        return (self.gain * obs).clamp(-2.0, 2.0)


@dataclasses.dataclass
class GaussianPolicy(LinearPolicy):
    """The same with a density of deviation 0.1, environment units."""

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        mode = super().act(obs)
        return mode if noise is None else (mode + 0.1 * noise).clamp(-2.0, 2.0)

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        return -((action - super().act(obs)) / 0.1).square().sum(-1)

    def sample(self, obs: Tensor, count: int, noise: Tensor) -> Tensor:
        return torch.stack([self.act(obs, noise[k]) for k in range(count)])


@dataclasses.dataclass
class QuadraticCritics:
    """`Q_j = offset_j - s^2 - a^2`, environment units."""

    offsets: tuple[float, ...] = (0.0,)

    def action_values(self, obs: Tensor, action: Tensor) -> Tensor:
        value = -obs[:, 0].square() - action[:, 0].square()
        return torch.stack([value + offset for offset in self.offsets])


def ends_beyond(limit: float):
    """Terminates where |s'| exceeds a limit."""

    def termination(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        del obs, action
        return (next_obs[:, 0].abs() > limit).to(next_obs.dtype)

    return termination


def simulate(
    episodes: int = 20, steps: int = 30, *, noise: float = 0.0, bonus: float = 0.0, seed: int = 0
) -> Dataset:
    """Logs of the true system `s' = 0.9 s + 0.5 a + noise`, `r = -s^2 + bonus |a|` under uniform actions."""
    rng = np.random.default_rng(seed)
    made: list[Episode] = []
    for _ in range(episodes):
        obs = np.zeros((steps + 1, 1), np.float32)
        obs[0] = rng.normal()
        actions = rng.uniform(-1.9, 1.9, (steps, 1)).astype(np.float32)
        for t in range(steps):
            obs[t + 1] = DECAY * obs[t] + GAIN * actions[t] + noise * rng.normal()
        rewards = COST * obs[:-1, 0] ** 2 + bonus * np.abs(actions[:, 0])
        made.append(Episode(obs, actions, rewards.astype(np.float32), terminated=False, truncated=True))
    return Dataset(tuple(made), SPACE, DatasetInfo(name="linear"))
