"""A log of which every number is known."""

import numpy as np

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo

SPACE = SpaceSpec(obs_dim=1, act_dim=1, act_low=(-1.0,), act_high=(1.0,))


def make_chain(episodes: int = 4, steps: int = 60) -> Dataset:
    """`s = 0, 1, 2, ...`, action 0, reward 1, every episode terminates."""
    return Dataset(
        tuple(
            Episode(
                observations=np.arange(steps + 1, dtype=np.float32)[:, None],
                actions=np.zeros((steps, 1), np.float32),
                rewards=np.ones(steps, np.float32),
                terminated=True,
                truncated=False,
            )
            for _ in range(episodes)
        ),
        SPACE,
        DatasetInfo(name="chain"),
    )
