import gymnasium
import numpy as np
import pytest

from mbrl.core.errors import ConfigError
from mbrl.envs.make import env_versions, make_env
from mbrl.envs.specs import TaskSpec, load_task


def changed(**changes: object) -> TaskSpec:
    return TaskSpec.model_validate(load_task("pendulum").model_dump() | changes)


@pytest.mark.parametrize(
    "env_id", ["Pendulm-v1", "Pendulum-v99", "no_such_package:Thing-v0", "NoSuchFamily-v0"]
)
def test_an_unknown_simulator_is_named_with_a_remedy(env_id: str) -> None:
    with pytest.raises(ConfigError, match=rf"'pendulum'.*'{env_id}'.*Remedy: check env_id"):
        make_env(changed(env_id=env_id))


def test_an_unknown_option_of_the_simulator_is_an_error() -> None:
    with pytest.raises(ConfigError, match="gravityy"):
        make_env(changed(env_kwargs={"gravityy": 1.0}))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"obs_dim": 4}, "observation vectors of size 4"),
        ({"act_dim": 2, "act_low": (-2, -2), "act_high": (2, 2)}, "action vectors of size 2"),
        ({"act_low": (-1.0,)}, r"act_low \[-1.0\], but 'Pendulum-v1' has \[-2.0\]"),
        ({"act_high": (2.5,)}, "act_high"),
        ({"env_id": "CartPole-v1", "obs_dim": 4}, r"the space Discrete\(2\)"),
    ],
)
def test_a_task_that_contradicts_its_simulator_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_env(changed(**changes))


def test_the_limit_of_the_task_replaces_the_simulators_own() -> None:
    for limit, expected in ((3, 3), (None, 200)):
        env = make_env(changed(max_episode_steps=limit))
        env.reset(seed=0)
        flags = [env.step(np.zeros(1, np.float32))[3] for _ in range(expected)]
        env.close()
        assert flags == [False] * (expected - 1) + [True]


def test_options_reach_the_simulator() -> None:
    task = load_task("ant")
    small = TaskSpec.model_validate(
        task.model_dump() | {"obs_dim": 27, "env_kwargs": {"include_cfrc_ext_in_observation": False}}
    )
    env = make_env(small)
    assert env.reset(seed=0)[0].shape == (27,)
    env.close()


def test_versions_are_those_that_are_installed() -> None:
    assert env_versions()["gymnasium"] == gymnasium.__version__
    assert set(env_versions()) == {"python", "gymnasium", "mujoco", "numpy", "torch"}
