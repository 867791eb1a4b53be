"""The only place that makes a simulator."""

import contextlib
import importlib
import importlib.metadata
import logging
import platform
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray
from pydantic import ValidationError

from mbrl.core.errors import ConfigError, MissingExtraError
from mbrl.envs import process
from mbrl.envs.spaces import env_choices, vector_env
from mbrl.envs.specs import TaskSpec, find_task

process.register()

Env: TypeAlias = "gymnasium.Env[Any, Any]"


def make_env(task: TaskSpec, *, is_rendered: bool = False) -> Env:
    """Makes the simulator of `task` and checks that its spaces are those that the task declares.

    A simulator of choices takes one-hot vectors (`mbrl.envs.spaces`).

    Args:
        task: the task; its `max_episode_steps`, where given, replaces the simulator's own limit.
        is_rendered: whether `render()` must return RGB frames.

    Raises:
        ConfigError: the task has no simulator, Gymnasium does not know the id or lacks a package for it, or
            the simulator's spaces contradict the task.
    """
    if task.env_id is None:
        raise ConfigError(
            f"Task {task.name!r} has no simulator (env_id is null): nothing can be collected or evaluated "
            "in it. Remedy: judge its policies by the log, with mbrl ope RUN --dataset LOG, or give it a "
            "Gymnasium id."
        )
    options: dict[str, Any] = {**task.env_kwargs, "max_episode_steps": task.max_episode_steps}
    if is_rendered:  # not every environment has the argument
        options["render_mode"] = "rgb_array"
    env = _make(task.env_id, options, where=f"Task {task.name!r}")
    try:
        _check_choices(task, env)
        env = vector_env(env)
        _check_spaces(task, env)
    except ConfigError:
        env.close()
        raise
    return env


def task_of_env(env_id: str) -> TaskSpec:
    """The shipped task of a simulator, else one of its own: sizes, bounds or choices, and time limit.

    Such a task has no reference scores, and no rule of termination: a model learns when episodes end.

    Args:
        env_id: Gymnasium id; `module:Id-v0` imports the module first.

    Raises:
        ConfigError: Gymnasium cannot make it, or its spaces are neither vectors nor choices.
    """
    known = find_task(env_id)
    if known is not None:
        return known
    raw = _make(env_id, {}, where="The environment")
    try:
        choices, env = env_choices(raw), vector_env(raw)
        seen, done = cast("object", env.observation_space), cast("object", env.action_space)
        for kind, space in (("observations", seen), ("actions", done)):
            if not isinstance(space, Box) or len(space.shape) != 1:
                raise ConfigError(
                    f"The {kind} of {env_id!r} are of the space {space}. Remedy: wrap the environment so "
                    "that observations are vectors, and actions vectors or choices."
                )
        bounds, limit = cast("Box", done), None if raw.spec is None else raw.spec.max_episode_steps
        sizes: dict[str, Any] = {
            "act_dim": bounds.shape[0],
            "act_low": bounds.low.astype(float).tolist(),
            "act_high": bounds.high.astype(float).tolist(),
        }
        fields: dict[str, Any] = {
            "name": env_id.rpartition(":")[2].rpartition("/")[2].lower(),
            "description": f"Made of the environment {env_id}.",
            "env_id": env_id,
            "obs_dim": cast("Box", seen).shape[0],
            "max_episode_steps": limit,
            **(sizes if choices is None else {"choices": choices}),
        }
        return _validated(fields, env_id)
    finally:
        raw.close()


def _validated(fields: dict[str, Any], env_id: str) -> TaskSpec:
    try:
        return TaskSpec.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(
            f"The environment {env_id!r} makes no task: {error.errors()[0]['msg']}. Remedy: wrap it so that "
            "its spaces are finite, or write a task's yaml."
        ) from error


def _make(env_id: str, options: Mapping[str, Any], *, where: str) -> Env:
    """Gymnasium's environment with keyword arguments of any name.

    Raises:
        ConfigError: it cannot be made.
    """
    _load_mujoco(env_id)
    _redirect_warnings()
    try:
        # The spaces are checked by whoever asks, once, instead of at every step.
        env: Env = gymnasium.make(env_id, disable_env_checker=True, **options)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ConfigError(
            f"{where}: Gymnasium cannot make {env_id!r}: {error} Remedy: check env_id and "
            "env_kwargs; an environment of another package needs that package installed and an id of the "
            "form module:Id-v0."
        ) from error
    _redirect_warnings()  # an id of the form module:Id-v0 may have loaded it just now
    return env


def render_frame(env: Env) -> NDArray[np.uint8]:
    """`[height, width, 3]`, what an environment made with `is_rendered` looks like now.

    Raises:
        MissingExtraError: the package that draws this environment is not installed.
        ConfigError: the environment cannot draw here, or returned no picture.
    """
    try:
        frame: object = env.render()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise MissingExtraError("pygame", extra="video", purpose="Drawing this environment") from error
    except _drawing_errors() as error:
        raise ConfigError(
            f"The environment cannot draw on this machine: {error}. Remedy: set the environment variable "
            "MUJOCO_GL to egl (a GPU, or software), or to osmesa, before the program starts."
        ) from error
    if not isinstance(frame, np.ndarray):
        raise ConfigError("The environment draws no RGB frames. Remedy: evaluate it without a video.")
    return cast("NDArray[np.uint8]", frame)


def _load_mujoco(env_id: str) -> None:
    """Loads MuJoCo for an environment that will: it warns while it compiles a model, before any is made."""
    spec = gymnasium.registry.get(env_id)
    if spec is not None and "mujoco" in str(spec.entry_point):
        with contextlib.suppress(ImportError):  # Gymnasium says so in a moment
            importlib.import_module("mujoco")


def _redirect_warnings() -> None:
    """Sends MuJoCo's warnings to the log of this module; by itself it leaves a file in the working folder."""
    mujoco: Any = sys.modules.get("mujoco")  # imported by environments that need it, and by no others
    if mujoco is not None:
        mujoco.set_mju_user_warning(_note_warning)


def _note_warning(text: str) -> None:
    """What is deprecated in a model concerns its authors, not those who use it."""
    level = logging.DEBUG if "deprecated" in text else logging.WARNING
    logging.getLogger(__name__).log(level, text)


def _drawing_errors() -> tuple[type[Exception], ...]:
    # MuJoCo reads MUJOCO_GL when it is imported: not before something has been drawn, or has failed to be.
    return RuntimeError, cast("type[Exception]", importlib.import_module("mujoco").FatalError)


def env_versions() -> dict[str, str]:
    """Versions that fix what a simulator computes, for the provenance of a dataset."""
    packages = ("gymnasium", "mujoco", "numpy", "torch")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **versions}


def _check_choices(task: TaskSpec, env: Env) -> None:
    """Choices are told by their place in the task's names: there must be as many as the simulator has."""
    own, declared = env_choices(env), task.choices
    if (own is None) != (declared is None) or len(own or ()) != len(declared or ()):
        here = "continuous actions" if declared is None else f"{len(declared)} choices"
        there = str(env.action_space) if own is None else f"{len(own)} ({env.action_space})"
        raise ConfigError(
            f"Task {task.name!r} declares {here}, but {task.env_id!r} has {there}. Remedy: correct its yaml: "
            "choices, their names or number, for discrete actions; act_dim and bounds for others."
        )


def _check_spaces(task: TaskSpec, env: Env) -> None:
    spaces: dict[str, object] = {"observation": env.observation_space, "action": env.action_space}
    for (kind, space), dim in zip(spaces.items(), (task.obs_dim, task.act_dim), strict=True):
        if not isinstance(space, Box) or space.shape != (dim,):
            raise ConfigError(
                f"Task {task.name!r} declares {kind} vectors of size {dim}, but {task.env_id!r} has the "
                f"space {space}. Remedy: correct the task's yaml, or wrap the environment."
            )
    action = cast("Box", env.action_space)
    bounds = {"act_low": (task.act_low, action.low), "act_high": (task.act_high, action.high)}
    for name, (declared, actual) in bounds.items():
        if not np.array_equal(np.asarray(declared, dtype=actual.dtype), actual):
            raise ConfigError(
                f"Task {task.name!r} declares {name} {list(declared)}, but {task.env_id!r} has "
                f"{actual.tolist()}. Remedy: correct the task's yaml."
            )
