from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from mbrl.core.errors import ConfigError, MissingExtraError
from mbrl.envs.make import env_versions, make_env, render_frame
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
        (
            {"env_id": "CartPole-v1", "obs_dim": 4},
            r"continuous actions, but 'CartPole-v1' has 2 \(Discrete\(2\)\)",
        ),
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


def test_options_of_any_name_reach_the_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def make(*, env_id: str, where: int) -> Any:
        seen.update(env_id=env_id, where=where)
        return gymnasium.make(env_id)

    monkeypatch.setitem(
        gymnasium.registry, "Wrapped-v0", gymnasium.envs.registration.EnvSpec("Wrapped-v0", entry_point=make)
    )
    make_env(changed(env_id="Wrapped-v0", env_kwargs={"env_id": "Pendulum-v1", "where": 3})).close()
    assert seen == {"env_id": "Pendulum-v1", "where": 3}


@pytest.mark.parametrize("name", ["id", "max_episode_steps", "render_mode", "disable_env_checker"])
def test_what_is_set_by_the_maker_is_no_option_of_the_simulator(name: str) -> None:
    with pytest.raises(ValueError, match=rf"env_kwargs\.{name} is set by whoever makes the simulator"):
        changed(env_kwargs={name: 1})


def test_versions_are_those_that_are_installed() -> None:
    assert env_versions()["gymnasium"] == gymnasium.__version__
    assert set(env_versions()) == {"python", "gymnasium", "mujoco", "numpy", "torch"}


def test_a_machine_that_cannot_draw_says_what_to_set() -> None:
    class Blind(gymnasium.Env[object, object]):
        def render(self) -> None:
            raise RuntimeError("no display")

    with pytest.raises(ConfigError, match=r"no display.*MUJOCO_GL"):
        render_frame(Blind())


def test_a_simulator_without_its_drawing_package_names_the_extra() -> None:
    class Undrawn(gymnasium.Env[object, object]):
        def render(self) -> None:
            raise gymnasium.error.DependencyNotInstalled("pygame is not installed")

    with pytest.raises(MissingExtraError, match=r"pip install 'mbrl-offline\[video\]'"):
        render_frame(Undrawn())


def test_a_simulator_that_returns_no_picture_is_refused() -> None:
    class Textual(gymnasium.Env[object, object]):
        def render(self) -> str:
            return "o-|"

    with pytest.raises(ConfigError, match="no RGB frames"):
        render_frame(Textual())


def test_warnings_of_the_simulator_are_logged_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_env(load_task("inverted_double_pendulum"))
    env.reset(seed=0)
    simulator: Any = env.unwrapped
    simulator.set_state(np.array([0.0, 1e8, 0.0]), np.array([1e12, 1e12, 0.0]))
    env.step(np.array([1.0], dtype=np.float32))
    assert "unstable" in caplog.text
    assert list(tmp_path.iterdir()) == []
