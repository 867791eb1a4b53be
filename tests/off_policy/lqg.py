"""A linear-Gaussian task with quadratic costs: closed forms for continuous actions."""

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class LinearPolicy:
    """`a = -K s + N(0, std^2 I)`; deterministic at std 0."""

    gain: Tensor
    half_range: float
    std: float = 0.0

    @property
    def act_dim(self) -> int:
        return self.gain.shape[0]

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        mean = -obs @ self.gain.T
        return mean if noise is None else mean + self.std * noise


class NoisyLinearPolicy(LinearPolicy):
    """With its density, on the action scaled to [-1, 1]."""

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        normal = torch.distributions.Normal(self.act(obs), self.std)
        return (normal.log_prob(action) + np.log(self.half_range)).sum(-1)

    def sample(self, obs: Tensor, count: int, noise: Tensor) -> Tensor:
        return torch.stack([self.act(obs, noise[k]) for k in range(count)])


@dataclasses.dataclass(frozen=True)
class LQG:
    """`s' = A s + B a + N(0, W)`, `r = -(s'Q s + a'R a)`, `s_0 ~ N(m, S)`."""

    a: Array
    b: Array
    noise: Array  # W
    state_cost: Array  # Q
    action_cost: Array  # R
    mean: Array
    covariance: Array
    half_range: float = 8.0

    def solve(self, gain: Array, std: float, discount: float) -> tuple[Array, float]:
        """P and c of `V(s) = -(s'P s + c)`."""
        closed = self.a - self.b @ gain
        stage = self.state_cost + gain.T @ self.action_cost @ gain
        p = np.zeros_like(self.a)
        for _ in range(100_000):
            new = stage + discount * closed.T @ p @ closed
            done = np.abs(new - p).max() < 1e-12
            p = new
            if done:
                break
        chance = std**2 * np.trace(self.action_cost)
        chance += discount * (np.trace(p @ self.noise) + std**2 * np.trace(self.b.T @ p @ self.b))
        return p, float(chance / (1 - discount))

    def value(self, gain: Array, std: float, discount: float) -> float:
        p, c = self.solve(gain, std, discount)
        return -float(self.mean @ p @ self.mean + np.trace(p @ self.covariance) + c)

    def simulate(self, policy: LinearPolicy, episodes: int, steps: int, seed: int) -> Dataset:
        """Episodes cut by a time-out after `steps`."""
        rng = np.random.default_rng(seed)
        d, k = self.a.shape[0], self.b.shape[1]
        obs = np.zeros((episodes, steps + 1, d))
        action, reward = np.zeros((episodes, steps, k)), np.zeros((episodes, steps))
        obs[:, 0] = rng.multivariate_normal(self.mean, self.covariance, episodes)
        root = np.linalg.cholesky(self.noise)
        for t in range(steps):
            s = obs[:, t]
            draw = torch.from_numpy(rng.normal(size=(episodes, k))).float()
            action[:, t] = policy.act(torch.from_numpy(s).float(), draw).numpy()
            u = action[:, t]
            reward[:, t] = -(np.einsum("ni,ij,nj->n", s, self.state_cost, s))
            reward[:, t] -= np.einsum("ni,ij,nj->n", u, self.action_cost, u)
            obs[:, t + 1] = s @ self.a.T + u @ self.b.T + rng.normal(size=(episodes, d)) @ root.T
        density = getattr(policy, "log_prob", None)
        logged = []
        for i in range(episodes):
            o, a = obs[i].astype(np.float32), action[i].astype(np.float32)
            log_prob = None if density is None else density(torch.from_numpy(o[:-1]), torch.from_numpy(a))
            logged.append(
                Episode(
                    o,
                    a,
                    reward[i].astype(np.float32),
                    terminated=False,
                    truncated=True,
                    behaviour_log_prob=None if log_prob is None else log_prob.numpy().astype(np.float32),
                )
            )
        low, high = (-self.half_range,) * k, (self.half_range,) * k
        return Dataset(tuple(logged), SpaceSpec(d, k, low, high), DatasetInfo(name="lqg"))


def scalar_task() -> LQG:
    one = np.ones((1, 1))
    return LQG(0.9 * one, 0.5 * one, 0.01 * one, one, 0.1 * one, np.ones(1), 0.1 * one)
