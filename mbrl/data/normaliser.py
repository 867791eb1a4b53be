"""Float64 statistics for normalisers; to be fitted on training episodes only."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STD_FLOOR: Final = 1e-12
"""Standard deviation below which a dimension counts as constant, whatever its mean."""

RELATIVE_FLOOR: Final = 1e-7
"""The same as a share of the mean's magnitude: the resolution of float32."""

_CHUNK: Final = 65536


def fit_moments(
    array: NDArray[Any], *, floor: float = STD_FLOOR
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation along axis 0, with `std = 1` in constant dimensions.

    A dimension is constant if its standard deviation lies below `floor` or below the resolution of float32
    at its mean, so that `(x - mean) / std` is 0 there instead of amplified rounding. Two passes in float64,
    in chunks.

    Args:
        array: `[n, ...]`, at least one row, raw units.
        floor: raw units.

    Returns:
        `(mean, std)`, each `[...]`.

    Raises:
        ValueError: there are no rows.
    """
    count = array.shape[0]
    if count == 0:
        raise ValueError("moments of an empty array")
    chunks = [array[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    mean = sum((chunk.sum(axis=0, dtype=np.float64) for chunk in chunks), np.float64(0.0)) / count
    squares = sum((np.square(chunk - mean).sum(axis=0) for chunk in chunks), np.float64(0.0))
    std = np.asarray(np.sqrt(squares / count), dtype=np.float64)
    is_constant = std < np.maximum(floor, RELATIVE_FLOOR * np.abs(mean))
    return np.asarray(mean, dtype=np.float64), np.where(is_constant, 1.0, std)
