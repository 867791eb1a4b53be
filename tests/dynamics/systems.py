"""Small known systems as datasets."""

from collections.abc import Callable

import numpy as np
import torch

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.dynamics.config import AssessmentConfig, DynamicsConfig, TerminationConfig
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.nets.normaliser import Normaliser
from mbrl.nets.stack import StackedMLP

MATRIX = np.array([[0.95, 0.2], [-0.2, 0.9]])
CONTROL = np.array([[0.1], [0.3]])


def linear_step(obs, action, rng, noise):
    return MATRIX @ obs + CONTROL @ action + noise * rng.standard_normal(2)


def make_dataset(
    *,
    episodes: int = 24,
    steps: int = 60,
    noise: float = 0.02,
    seed: int = 0,
    step: Callable = linear_step,
    wall: float | None = None,
) -> Dataset:
    """Episodes of a 2-d system with a 1-d action; they terminate where the first coordinate passes `wall`."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(episodes):
        obs, actions, rewards, terminated = [rng.normal(size=2)], [], [], False
        for _ in range(steps):
            action = rng.uniform(-1, 1, 1)
            obs.append(step(obs[-1], action, rng, noise))
            actions.append(action)
            rewards.append(-float(obs[-2] @ obs[-2]) + 0.1 * float(action[0]))
            terminated = wall is not None and bool(obs[-1][0] > wall)
            if terminated:
                break
        made.append(
            Episode(
                observations=np.array(obs, np.float32),
                actions=np.array(actions, np.float32),
                rewards=np.array(rewards, np.float32),
                terminated=terminated,
                truncated=not terminated,
            )
        )
    spec = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-1.0,), act_high=(1.0,))
    return Dataset(tuple(made), spec, DatasetInfo(name="toy"))


def small_config(**changes) -> DynamicsConfig:
    settings = {
        "members": 4,
        "elites": 3,
        "hidden": (32, 32),
        "batch_size": 64,
        "max_updates": 120,
        "min_epoch_updates": 40,
        "termination": TerminationConfig(hidden=(32,), max_updates=80),
        "assessment": AssessmentConfig(
            horizon=8, segments=30, particles=20, max_rows=1000, bootstrap_draws=50
        ),
    }
    return DynamicsConfig(**(settings | changes))


def linear_ensemble(
    *, offsets=(0.0,), noise: float = 0.1, reward_noise: float = 0.2, temperature: float = 1.0
) -> DynamicsEnsemble:
    """Exact members without a hidden layer: `s' ~ N(A s + B a + offset_e, noise^2)`, `r ~ N(s_0 + a, ..)`."""
    members = len(offsets)
    net = StackedMLP(members, 3, (), 6, generator=torch.Generator().manual_seed(0))
    weight, bias = np.zeros((members, 3, 6)), np.zeros((members, 1, 6))
    weight[:, :2, :2], weight[:, 2:, :2] = (MATRIX - np.eye(2)).T, CONTROL.T
    weight[:, :, 2] = [1.0, 0.0, 1.0]
    bias[:, 0, :2] = np.array(offsets)[:, None]
    bias[:, 0, 3:] = 2 * np.log([noise, noise, reward_noise])
    with torch.no_grad():
        (layer,) = net.layers(net.flat)
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    bounds = torch.tensor([-40.0, 40.0])[None, :, None].expand(members, 2, 3)
    model = DynamicsEnsemble(
        net,
        bounds,
        inputs=Normaliser.identity(3),
        targets=Normaliser.identity(3),
        temperature=torch.full((3,), temperature),
    )
    return model.requires_grad_(requires_grad=False)


class EndsBeyond:
    """A termination rule: probability `share` where the first coordinate of s' exceeds `wall`."""

    def __init__(self, wall: float, share: float = 1.0) -> None:
        self.wall, self.share = wall, share

    def __call__(self, obs, action, next_obs):
        return self.share * (next_obs[:, 0] > self.wall).float()
