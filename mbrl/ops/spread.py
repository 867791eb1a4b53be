"""The spread of numbers of which a few may be wrong."""

import math
from typing import Final

from jaxtyping import Float
from torch import Tensor

CENTRAL_TAILS: Final = (0.05, 0.005, 0.0005)
"""Shares cut off at each end; the first that leaves more than one value is taken. Sparse rewards, which are
equal in all but a few rows, need the later ones."""

FENCE: Final = 5.0
"""Widths of the central part beyond which a value is an outlier. That of a Gaussian is 3.3 deviations wide:
an outlier lies 18 deviations off. The ends of bounded distributions are far inside."""

LEAST_RATIO: Final = 0.2
"""Least scale, in mean sizes: what all values share, such as the bonus for being alive, is then five units at
most, and a sum of it over a hundred steps 500, which networks still learn."""

LEAST_VARIATION: Final = 0.01
"""Deviation, in mean sizes, below which values are taken for constant: no scale brings out what varies."""


def fences(values: Float[Tensor, "n"]) -> tuple[float, float]:
    """The range that values are expected in: their central part, and five of its widths beyond each end.

    After Tukey 1977, with a wider part and a wider fence: few values must never move it, and ordinary ones
    never lie outside. One wrong value, however large, is in no central part, which always leaves out the
    least and the greatest.

    Args:
        values: `[n]`, n >= 1.

    Returns:
        The two fences, units of the values; both the median where all central parts are single values.
    """
    ordered = values.double().sort().values
    n = len(ordered)
    low, high = float(ordered[0]), float(ordered[-1])
    for tail in CENTRAL_TAILS if n >= 3 else ():
        cut = math.ceil(tail * n)
        low, high = float(ordered[cut]), float(ordered[n - 1 - cut])
        if high > low:
            break
    width = high - low
    return low - FENCE * width, high + FENCE * width


def clip_outliers(values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Values `[n]` within their `fences`, float64."""
    low, high = fences(values)
    return values.double().clamp(low, high)


def robust_scale(values: Float[Tensor, "n"]) -> float:
    """A size to measure values by: their deviation, outliers clipped, and at least 1/5 of their mean size.

    Of values that hardly vary it is their mean size. Ordinary values are not clipped: the scale is then their
    population deviation, to the last bit. It is equivariant: values times c have c times the scale.

    Args:
        values: `[n]`, n >= 1.

    Returns:
        A positive number, units of the values: the deviation of all values where only a few differ from 0; 1
        where all are 0.
    """
    inside = clip_outliers(values)
    spread, size = float(inside.std(correction=0)), float(inside.abs().mean())
    scale = size if spread < LEAST_VARIATION * size else max(spread, LEAST_RATIO * size)
    return scale or float(values.double().std(correction=0)) or 1.0
