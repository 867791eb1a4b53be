"""Small known systems as datasets."""

from collections.abc import Callable

import numpy as np

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.dynamics.config import AssessmentConfig, DynamicsConfig, TerminationConfig

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
