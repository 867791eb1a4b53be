"""Small logs whose every number says where it belongs: observation = 100 * episode + step."""

from collections.abc import Sequence

import numpy as np

from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.raw import RawEpisode

SPEC = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-1.0,), act_high=(1.0,))


def make_episode(
    index: int = 0,
    steps: int = 5,
    *,
    terminated: bool = False,
    is_final_observation_known: bool = True,
    log_prob: bool = False,
    times: bool = False,
    infos: bool = False,
    reward: float | None = None,
) -> Episode:
    count = 100 * index + np.arange(steps + 1, dtype=np.float32)
    observations = np.stack([count, -0.5 * count], axis=1)
    if not is_final_observation_known:
        observations[-1] = observations[-2]
    return Episode(
        observations=observations,
        actions=np.sin(count[:-1])[:, None],
        rewards=np.full(steps, index if reward is None else reward, dtype=np.float32),
        terminated=terminated,
        truncated=not terminated,
        is_final_observation_known=is_final_observation_known,
        behaviour_log_prob=-count[:-1] if log_prob else None,
        timestamps=0.02 * np.arange(steps + 1) if times else None,
        infos={"extra": np.arange(steps) * 2, "state": np.arange(steps + 1)[:, None] + 0.5} if infos else {},
    )


def make_dataset(lengths: Sequence[int] = (4, 3, 5), **options: bool) -> Dataset:
    """Every second episode terminates."""
    episodes = tuple(
        make_episode(index, steps, terminated=index % 2 == 1, **options)
        for index, steps in enumerate(lengths)
    )
    return Dataset(episodes=episodes, spec=SPEC, info=DatasetInfo(name="toy", env_id="Toy-v0"))


def make_raw(steps: int = 4, name: str = "episode_7") -> RawEpisode:
    count = np.arange(steps + 1, dtype=np.float64)
    ends = np.arange(steps) == steps - 1
    return RawEpisode(
        name=name,
        observations=np.stack([count, -count], axis=1),
        actions=0.1 * count[:-1, None],
        rewards=np.ones(steps),
        terminations=np.zeros(steps, dtype=np.bool_),
        truncations=ends,
    )
