"""Names of choices, and the integers that stand for them outside: in files and in simulators.

Inside, an action of a discrete space is a one-hot vector. Its id is its name where all names are integers
("0", "1", "3", or "2,0" for several integers at once), else its place among the names.
"""

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

StatedChoices: TypeAlias = int | Sequence[int] | Sequence[str]
"""How many choices there are, the sizes of several integers that make a choice together, or names."""

MAX_CHOICES: Final = 1024
"""Most choices of a space; several integers at once count as the product of their sizes."""

MAX_INTEGERS: Final = 32
"""Most integers that make a choice together."""

_INTEGERS: Final = re.compile(r"(?:0|-?[1-9]\d{0,17})(?:,(?:0|-?[1-9]\d{0,17}))*")


def product_names(sizes: Sequence[int], starts: Sequence[int] | None = None) -> tuple[str, ...]:
    """Names of all combinations of several integers, the last one changing fastest: "0,0", "0,1", "1,0", ...

    Args:
        sizes: values that each integer takes, 1 or more; a single size gives "0", "1", "2", ...
        starts: the least value of each; 0 without.

    Raises:
        ValueError: they are none, not positive, or more than 1,024 combinations.
    """
    first = [0] * len(sizes) if starts is None else list(starts)
    count = math.prod(sizes)
    if len(sizes) > MAX_INTEGERS:
        raise ValueError(f"{len(sizes):,} integers make a choice, where {MAX_INTEGERS} are the most")
    if not sizes or any(size < 1 for size in sizes) or len(first) != len(sizes):
        raise ValueError(f"{list(sizes)} are no sizes of choices")
    if count > MAX_CHOICES:
        raise ValueError(f"{count:,} choices, where {MAX_CHOICES:,} are the most")
    ranges = (range(start, start + size) for start, size in zip(first, sizes, strict=True))
    return tuple(",".join(map(str, values)) for values in itertools.product(*ranges))


def stated_names(choices: StatedChoices) -> tuple[str, ...]:
    """Names of choices that somebody states.

    Args:
        choices: how many (named "0", "1", ...), the sizes of several integers ("0,0", "0,1", ...), or names.

    Raises:
        ValueError: they are none, more than 1,024, or two have the same name.
    """
    if isinstance(choices, int):
        return product_names((choices,))
    values = tuple(choices)
    names = (
        tuple(str(value) for value in values)
        if any(isinstance(value, str) for value in values)
        else product_names([int(value) for value in values])
    )
    if not 1 <= len(names) <= MAX_CHOICES:
        raise ValueError(f"{len(names):,} choices, where 1 to {MAX_CHOICES:,} are possible")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the choice {twice!r} is named twice")
    return names


def choice_ids(names: Sequence[str]) -> NDArray[np.int64]:
    """`[n, w]`, what stands for each choice outside: the integers of its name, else its place (w = 1)."""
    if all(_INTEGERS.fullmatch(name) for name in names):
        rows = [[int(value) for value in name.split(",")] for name in names]
        if len({len(row) for row in rows}) == 1:
            return np.array(rows, dtype=np.int64)
    return np.arange(len(names), dtype=np.int64)[:, None]


def are_ids(names: Sequence[str]) -> bool:
    """Whether names say no more than the ids that stand for them, counted from 0."""
    return tuple(names) == tuple(str(index) for index in range(len(names)))


def outer_actions(actions: NDArray[Any], names: Sequence[str]) -> NDArray[np.int64]:
    """One-hot actions as ids: `[*b]`, or `[*b, w]` where w integers make a choice.

    Args:
        actions: `[*b, n]`; of a row that is not one-hot the largest entry counts, the first of equals.
        names: of the n choices.
    """
    ids = choice_ids(names)[np.asarray(actions).argmax(-1)]
    return ids[..., 0] if ids.shape[-1] == 1 else ids


def one_hot(index: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """`[*b, count]` of places `[*b]`."""
    return np.eye(count, dtype=np.float32)[index]


def is_choice_space(space: object) -> bool:
    """Whether a Gymnasium space is `Discrete`, `MultiDiscrete` or `MultiBinary`, by its attributes."""
    return hasattr(space, "n") or hasattr(space, "nvec")


def space_names(space: Any) -> tuple[str, ...]:
    """Names of the choices of a Gymnasium space, its values: `Discrete`, `MultiDiscrete` or `MultiBinary`.

    Raises:
        ValueError: they are more than 1,024.
    """
    if hasattr(space, "nvec"):
        sizes, starts = np.asarray(space.nvec), np.asarray(getattr(space, "start", 0))
        starts = np.broadcast_to(starts, sizes.shape)
        return product_names(sizes.reshape(-1).tolist(), starts.reshape(-1).tolist())
    shape: tuple[int, ...] = getattr(space, "shape", None) or ()
    if shape:  # MultiBinary, whose n may be a shape
        return product_names((2,) * min(math.prod(shape), MAX_INTEGERS + 1))
    return product_names((int(space.n),), (int(getattr(space, "start", 0)),))
