"""Simulators of choices behind vectors."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.collect import collect
from mbrl.envs.make import make_env, task_of_env
from mbrl.envs.spaces import env_choices, vector_env
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.nets.random_policy import random_policy


class Echo(gymnasium.Env[Any, Any]):
    """Observes what was done; in step t the choice t % 4 is forbidden."""

    def __init__(self, action_space: Any = None) -> None:
        self.action_space = action_space or Discrete(4, start=2)
        self.observation_space = Box(-10, 10, (1,), np.float32)
        self.done: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.done = []
        return np.zeros(1, np.float32), {"action_mask": self._mask()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.done.append(action)
        return np.ones(1, np.float32), 1.0, False, len(self.done) == 8, {"action_mask": self._mask()}

    def _mask(self) -> np.ndarray:
        return np.roll(np.array([0, 1, 1, 1], dtype=np.int8), len(self.done) % 4)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("MbrlEcho-v0", entry_point=Echo)
    yield
    gymnasium.registry.pop("MbrlEcho-v0")


def test_one_hot_vectors_become_the_values_of_the_space() -> None:
    for space, expected in (
        (Discrete(3, start=-1), [-1, 0, 1]),
        (MultiDiscrete([2, 2]), [[0, 0], [0, 1], [1, 0], [1, 1]]),
        (MultiBinary(2), [[0, 0], [0, 1], [1, 0], [1, 1]]),
    ):
        inner = Echo(space)
        env = vector_env(inner)
        env.reset()
        size = len(env_choices(inner) or ())
        assert env.action_space.shape == (size,)
        for index in range(size):
            env.step(np.eye(size, dtype=np.float32)[index])
        assert [np.asarray(value).tolist() for value in inner.done] == expected


def test_masks_of_the_infos_bind_random_choices_and_are_logged() -> None:
    task = TaskSpec(name="echo", env_id="MbrlEcho-v0", obs_dim=1, choices=["a", "b", "c", "d"])
    for episode in collect(task, random_policy(task.space), rng=RngStreams(0), episodes=12, num_envs=3):
        mask = episode.infos["action_mask"]
        assert mask.shape == (9, 4)
        assert [int(np.flatnonzero(~row)[0]) for row in mask] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
        assert (mask[:-1] & (episode.actions > 0)).any(1).all()
        assert episode.behaviour_log_prob == pytest.approx(np.full(8, -np.log(3)))


def test_a_task_is_made_of_any_environment() -> None:
    assert task_of_env("CartPole-v1") == load_task("cartpole")
    task = task_of_env("MbrlEcho-v0")
    assert (task.choices, task.obs_dim, task.env_id) == (("2", "3", "4", "5"), 1, "MbrlEcho-v0")
    assert TaskSpec.model_validate(task.model_dump(mode="json")) == task
    lake = task_of_env("FrozenLake-v1")
    assert (lake.obs_dim, lake.max_episode_steps) == (16, 100)
    (episode,) = collect(lake, random_policy(lake.space), rng=RngStreams(1), episodes=1)
    assert set(episode.observations.sum(1)) == {1.0}  # cells are one-hot


def test_other_numbers_of_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"declares 3 choices, but 'CartPole-v1' has 2 \(Discrete\(2\)\)"):
        make_env(TaskSpec(name="x", env_id="CartPole-v1", obs_dim=4, choices=3))
    with pytest.raises(ConfigError, match=r"declares 3 choices, but 'Pendulum-v1' has Box"):
        make_env(TaskSpec(name="x", env_id="Pendulum-v1", obs_dim=3, choices=3))
    with pytest.raises(ConfigError, match="are the most"):
        env_choices(Echo(MultiDiscrete([40, 40])))


def test_shipped_rules_solve_their_tasks() -> None:
    from mbrl.run.collect import find_policy

    for name, least in (("cartpole", 500.0), ("acrobot", -160.0), ("mountain_car", -150.0)):
        task = load_task(name)
        policy = find_policy("expert", task)
        made = collect(task, policy, rng=RngStreams(0), episodes=10, is_deterministic=True)
        assert float(np.mean([episode.episode_return for episode in made])) >= least
