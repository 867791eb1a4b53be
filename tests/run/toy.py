"""A small random dataset and configs that train in well under a second."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mbrl.core.types import Episode, SpaceSpec, TransitionBatch
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.formats.base import FORMATS

SPACE = SpaceSpec(obs_dim=3, act_dim=2, act_low=(-1.0, -2.0), act_high=(1.0, 0.5))

TINY_DYNAMICS: dict[str, Any] = {
    "members": 3,
    "elites": 2,
    "hidden": [8],
    "max_updates": 40,
    "min_epoch_updates": 10,
    "max_epoch_updates": 10,
    "assessment": {"horizon": 3, "segments": 4, "particles": 4, "bootstrap_draws": 10, "max_rows": 200},
    "termination": {"hidden": [8], "max_updates": 20},
}


def make_episodes(count: int = 12, steps: int = 30, seed: int = 0) -> tuple[Episode, ...]:
    """Stable linear dynamics with noise; every third episode terminates."""
    rng = np.random.default_rng(seed)
    episodes: list[Episode] = []
    for index in range(count):
        obs = np.zeros((steps + 1, 3), dtype=np.float32)
        obs[0] = rng.normal(size=3)
        low, high = np.array(SPACE.act_low), np.array(SPACE.act_high)
        actions = rng.uniform(low, high, size=(steps, 2)).astype(np.float32)
        for t in range(steps):
            obs[t + 1] = 0.9 * obs[t] + 0.1 * actions[t].sum() + 0.01 * rng.normal(size=3)
        rewards = (-np.square(obs[:-1]).sum(1)).astype(np.float32)
        ends = index % 3 == 0
        episodes.append(Episode(obs, actions, rewards, terminated=ends, truncated=not ends))
    return tuple(episodes)


def make_dataset(**kwargs: Any) -> Dataset:
    return Dataset(make_episodes(**kwargs), SPACE, DatasetInfo(name="toy"))


def write_dataset(folder: Path) -> Path:
    return FORMATS.get("minari").write(make_dataset(), folder / "toy")


def transitions() -> TransitionBatch:
    return make_dataset().transitions().to_batch()


def assert_same(first: Any, second: Any, name: str = "") -> None:
    """Bitwise equality of nested plain containers."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), name
        for key in first:
            assert_same(first[key], second[key], f"{name}.{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), name
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_same(a, b, f"{name}[{index}]")
    else:
        both_nan = isinstance(first, float) and math.isnan(first) and math.isnan(second)
        assert both_nan or first == second, name
