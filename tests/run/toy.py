"""A small random dataset and configs that train in well under a second."""

from pathlib import Path
from typing import Any

from mbrl.data.formats.base import FORMATS
from mbrl.testing.checks import find_difference
from mbrl.testing.samples import SPACE, TINY_DYNAMICS, make_dataset, make_episodes
from mbrl.testing.samples import make_transitions as transitions

__all__ = [
    "SPACE",
    "TINY_DYNAMICS",
    "assert_same",
    "make_dataset",
    "make_episodes",
    "transitions",
    "write_dataset",
]


def write_dataset(folder: Path) -> Path:
    return FORMATS.get("minari").write(make_dataset(), folder / "toy")


def assert_same(first: Any, second: Any) -> None:
    """Bitwise equality of nested plain containers."""
    difference = find_difference(first, second)
    assert difference is None, difference
