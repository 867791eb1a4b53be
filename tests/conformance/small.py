"""The shipped methods that learn from logs, made small enough to be trained in a test."""

from collections.abc import Mapping
from typing import Any

from mbrl.algorithms.base import RECIPES
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


def offline_names() -> list[str]:
    """Of all but the published forms, which keep units of their own."""
    names = [name for name in part_names("algorithms") if not name.endswith("-published")]
    return [name for name in names if not RECIPES.get(small_algorithm(name, {})[0]).is_online]
