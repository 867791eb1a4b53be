"""Between a simulator's own spaces and the vectors that policies and logs speak: the one place of it."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

from mbrl.core.choices import MAX_CHOICES, choice_ids, is_choice_space, space_names
from mbrl.core.errors import ConfigError


class ChoiceActions(gymnasium.ActionWrapper[Any, Any, Any]):
    """A simulator of choices that takes one-hot vectors, in the order of its own values.

    Args:
        env: its actions are `Discrete`, `MultiDiscrete` or `MultiBinary`; several integers count as one
            choice of their combinations, the last one changing fastest.

    Raises:
        ConfigError: the choices are more than 1,024.
    """

    def __init__(self, env: "gymnasium.Env[Any, Any]") -> None:
        super().__init__(env)
        names = env_choices(env) or ()
        self._values = choice_ids(names)
        self._inner: Any = env.action_space
        self.action_space = Box(0.0, 1.0, (len(names),), np.float32)

    def action(self, action: NDArray[np.float32]) -> Any:
        """The simulator's action of a one-hot vector; of any other vector the largest entry counts."""
        value = self._values[int(np.argmax(action))]
        if isinstance(self._inner, Discrete):
            return int(value[0])
        return value.reshape(self._inner.shape).astype(self._inner.dtype)


def env_choices(env: "gymnasium.Env[Any, Any]") -> tuple[str, ...] | None:
    """Names of the choices of a simulator: its values; None for continuous actions.

    Raises:
        ConfigError: they are more than 1,024.
    """
    try:
        return space_names(env.action_space) if is_choice_space(env.action_space) else None
    except ValueError as error:
        raise ConfigError(
            f"The action space {env.action_space} cannot be learned over: {error}. Remedy: wrap "
            f"the environment so that it has at most {MAX_CHOICES:,} choices."
        ) from error


def vector_env(env: "gymnasium.Env[Any, Any]") -> "gymnasium.Env[Any, Any]":
    """The simulator with vectors as observations and as actions.

    Observations of other spaces are flattened as Gymnasium does it (`Discrete` becomes one-hot). An
    environment of vectors is returned as it is.

    Raises:
        ConfigError: see `env_choices`.
    """
    if is_choice_space(env.action_space):
        env = ChoiceActions(env)
    space = env.observation_space
    if isinstance(space, Box) and len(space.shape) == 1:
        return env
    if not space.is_np_flattenable:
        return env
    return gymnasium.wrappers.FlattenObservation(env)
