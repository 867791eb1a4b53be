"""Float64 statistics for normalisers; to be fitted on training episodes only."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbrl.data.stored.gathered import Rows

STD_FLOOR: Final = 1e-12
"""Standard deviation below which a dimension counts as constant, whatever its mean."""

NEAR_CONSTANT: Final = 5e-6
"""The same as a share of the mean's magnitude, some forty steps of float32: what varies less is a sensor at
rest and its noise, or an offset so large that little of the signal is left."""

_CHUNK: Final = 65536


class Moments(NamedTuple):
    """Statistics of each dimension, raw units, float64.

    Attributes:
        mean: its mean.
        std: its population standard deviation.
        is_constant: it varies by less than `STD_FLOOR`, or than `NEAR_CONSTANT` of its mean.
        scale: `std`; of constant dimensions `max(1, |mean|)`. Divided by it, their noise is no signal, and a
            shift is small unless it is as large as the dimension itself.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    is_constant: NDArray[np.bool_]
    scale: NDArray[np.float64]


def measure_moments(array: Rows, *, floor: float = STD_FLOOR) -> Moments:
    """Moments along axis 0. Two passes in float64, in chunks.

    Args:
        array: `[n, ...]`, at least one row, raw units.
        floor: replaces `STD_FLOOR`, raw units.

    Raises:
        ValueError: there are no rows.
    """
    count = array.shape[0]
    if count == 0:
        raise ValueError("moments of an empty array")
    mean = sum((chunk.sum(axis=0, dtype=np.float64) for chunk in _chunks(array)), np.float64(0.0)) / count
    # Squares of distances from the mean, not mean square minus squared mean: that cancels far from 0.
    squares = sum((np.square(chunk - mean).sum(axis=0) for chunk in _chunks(array)), np.float64(0.0))
    mean, std = np.asarray(mean, dtype=np.float64), np.asarray(np.sqrt(squares / count), dtype=np.float64)
    is_constant = np.asarray(std < np.maximum(floor, NEAR_CONSTANT * np.abs(mean)))
    return Moments(mean, std, is_constant, np.where(is_constant, np.maximum(1.0, np.abs(mean)), std))


def _chunks(array: Rows) -> Iterator[NDArray[Any]]:
    """Some rows at a time: an array may be one that is read from disk where it is indexed."""
    return (array[start : start + _CHUNK] for start in range(0, len(array), _CHUNK))


def fit_moments(array: Rows, *, floor: float = STD_FLOOR) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and scale of a normaliser, `(x - mean) / scale`, each `[...]`; see `Moments`.

    Args:
        array: `[n, ...]`, at least one row, raw units.
        floor: standard deviation below which a dimension counts as constant, raw units.

    Raises:
        ValueError: there are no rows.
    """
    moments = measure_moments(array, floor=floor)
    return moments.mean, moments.scale


def are_choices(action: Rows) -> bool:
    """Whether every row `[n, act_dim]` is one-hot over two choices or more."""
    return action.shape[1] > 1 and all(_are_one_hot(chunk) for chunk in _chunks(action))


def _are_one_hot(action: NDArray[Any]) -> bool:
    is_choice = ((action == 0) | (action == 1)).all(1) & ((action == 1).sum(1) == 1)
    return bool(is_choice.all())


def fit_action_moments(action: Rows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `fit_moments`; 0 and 1 for one-hot actions, which pass as they are.

    Divided by its deviation, a choice that is taken once in 10,000 steps would be an input of 100, and
    farther from all others than any state from another. As they are, two choices lie sqrt(2) apart.

    Args:
        action: `[n, act_dim]`, at least one row, environment units.

    Raises:
        ValueError: there are no rows.
    """
    if len(action) and are_choices(action):
        size = (action.shape[1],)
        return np.zeros(size, dtype=np.float64), np.ones(size, dtype=np.float64)
    return fit_moments(action)
