"""The shipped methods that learn from logs, made small enough to be trained in a test."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbrl.algorithms.base import RECIPES
from mbrl.core.types import SpaceSpec
from mbrl.run.config import find_part, parse_algorithm, part_names
from mbrl.run.documents import read_yaml, set_at


def small_algorithm(name: str, values: Mapping[str, Any]) -> tuple[str, Any]:
    """Recipe and config of a shipped method with other values, by dotted names; what it lacks is left out."""
    tree = read_yaml(find_part("algorithms", name))
    known = {*RECIPES.get(tree["recipe"]).Config.model_fields}
    for key, value in values.items():
        if key.partition(".")[0] in known:
            set_at(tree, tuple(key.split(".")), value)
    return parse_algorithm(tree, where=name)


CHOICES = SpaceSpec.discrete(2, ("back", "rest", "forth"))
"""Of an integrator whose actions are choices: pushes of -1, 0 and 1."""


def takes_choices(name: str) -> bool:
    """Whether a shipped method learns from a log of choices."""
    return small_algorithm(name, {})[1].learner.config.acts_on_choices


def nearest_choice(push: NDArray[Any]) -> NDArray[Any]:
    """One-hot `[*b, 3]`, the choice that pushes most like `[*b]`."""
    return np.eye(3)[np.clip(np.rint(push), -1, 1).astype(int) + 1]


def push_of(action: NDArray[Any]) -> NDArray[Any]:
    """What actions `[b, 1]`, or one-hot ones `[b, 3]`, push by, `[b]`."""
    return action[:, 0] if action.shape[1] == 1 else action.argmax(1) - 1.0


def offline_names() -> list[str]:
    """Of all but the published forms, which keep units of their own."""
    names = [name for name in part_names("algorithms") if not name.endswith("-published")]
    return [name for name in names if not RECIPES.get(small_algorithm(name, {})[0]).is_online]
