"""Dynamics models whose values are known: linear-Gaussian ones and tables."""

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from mbrl.core.types import DynamicsPosterior
from mbrl.dynamics.termination import NeverTerminates
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.rollouts.generate import Box
from tests.off_policy.lqg import LQG, Array, scalar_task
from tests.off_policy.tabular import MDP


class PosteriorModel:
    """A model by its `predict` alone."""

    ensemble_size: int

    def predict(self, obs: Tensor, action: Tensor) -> DynamicsPosterior:
        raise NotImplementedError

    def predict_member(
        self, obs: Tensor, action: Tensor, member: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        posterior, row = self.predict(obs, action), torch.arange(len(obs))
        fields = (posterior.mean, posterior.variance, posterior.reward_mean, posterior.reward_variance)
        mean, variance, reward_mean, reward_variance = (field[member, row] for field in fields)
        return mean, variance, reward_mean, reward_variance


@dataclasses.dataclass(frozen=True)
class LinearGaussian(PosteriorModel):
    """One LQG for each member; the rewards of all are those of the first, times `reward_scale`."""

    tasks: tuple[LQG, ...]
    reward_scale: float = 1.0

    @property
    def ensemble_size(self) -> int:
        return len(self.tasks)

    def predict(self, obs: Tensor, action: Tensor) -> DynamicsPosterior:
        def tensor(array: Array) -> Tensor:
            return torch.tensor(array, dtype=obs.dtype)

        mean = torch.stack([obs @ tensor(t.a).T + action @ tensor(t.b).T for t in self.tasks])
        variance = torch.stack([tensor(np.diag(t.noise)).expand(obs.shape) for t in self.tasks])
        costs = [
            ((obs @ tensor(t.state_cost)) * obs).sum(-1) + ((action @ tensor(t.action_cost)) * action).sum(-1)
            for t in self.tasks
        ]
        reward = -self.reward_scale * torch.stack(costs)
        ones = torch.ones(obs.shape[1], dtype=obs.dtype)
        return DynamicsPosterior(mean, variance, reward, torch.zeros_like(reward), ones, ones[0])


@dataclasses.dataclass(frozen=True)
class TableModel(PosteriorModel):
    """Deterministic transitions of an MDP with one-hot states; the end is entered through zeros."""

    mdps: tuple[MDP, ...]

    @property
    def ensemble_size(self) -> int:
        return len(self.mdps)

    def predict(self, obs: Tensor, action: Tensor) -> DynamicsPosterior:
        state, chosen = obs.argmax(-1).numpy(), action.argmax(-1).numpy()
        mean = torch.stack(
            [torch.from_numpy(m.transition[state, chosen, :-1]).to(obs.dtype) for m in self.mdps]
        )
        reward = torch.stack([torch.from_numpy(m.reward[state, chosen]).to(obs.dtype) for m in self.mdps])
        ones = torch.ones(obs.shape[1], dtype=obs.dtype)
        return DynamicsPosterior(
            mean, torch.zeros_like(mean), reward, torch.zeros_like(reward), ones, ones[0]
        )

    @staticmethod
    def termination(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        del obs, action
        return (next_obs.sum(-1) < 0.5).to(next_obs.dtype)


def members(*factors: float) -> tuple[LQG, ...]:
    """The scalar task with its dynamics scaled."""
    return tuple(dataclasses.replace(scalar_task(), a=factor * scalar_task().a) for factor in factors)


def evaluation(*tasks: LQG, limit: float = math.inf, reward_scale: float = 1.0) -> EvaluationModel:
    return EvaluationModel(LinearGaussian(tasks, reward_scale), NeverTerminates(), limit, limit)


def wide_box(obs_dim: int) -> Box:
    """Clips nothing."""
    end = torch.full((obs_dim,), 1e9)
    return Box(-end, end, torch.tensor(-1e9), torch.tensor(1e9), torch.ones(len(end) + 1, dtype=torch.bool))
