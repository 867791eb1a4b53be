"""The spread of numbers of which a few may be wrong."""

import math
from typing import Final, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

CENTRAL_TAILS: Final = (0.05, 0.005, 0.0005)
"""Shares cut off at each end; the first that leaves more than one value is taken. Sparse rewards, which are
equal in all but a few rows, need the later ones."""

FEW: Final = 1e-3
"""Share of the values, at each end, that may be wrong beyond doubt."""

LEAST_FEW: Final = 2
"""And how many may: two that are equal do not hide each other."""

FENCE: Final = 5.0
"""Widths of the central part beyond which a value is an outlier. That of a Gaussian is 3.3 deviations wide:
an outlier lies 18 deviations off. The ends of bounded distributions are far inside."""

LEAST_RATIO: Final = 0.2
"""Least scale, in mean sizes: what all values share, such as the bonus for being alive, is then five units at
most, and a sum of it over a hundred steps 500, which networks still learn."""

LEAST_VARIATION: Final = 0.01
"""Deviation, in mean sizes, below which values are taken for constant: no scale brings out what varies."""


class PlausibleRange(NamedTuple):
    """Where values lie that are no outliers: a central part of them, and five of its widths beyond each end.

    After Tukey 1977, with a wider part and a wider fence: few values must never move it, and ordinary ones
    never lie outside. One wrong value, however large, is in no central part, which always leaves out the
    least and the greatest.

    Attributes:
        low: the lower fence; may be infinite.
        high: the upper one.
        least: least value that was seen and is no outlier.
        largest: largest such value.
    """

    low: float
    high: float
    least: float
    largest: float

    @classmethod
    def of_most(cls, values: Float[Tensor, "n"]) -> "PlausibleRange":
        """For sizes of values, which may overlook a tenth of them.

        Both fences are the median where all central parts are single values.

        Args:
            values: `[n]`, n >= 1, finite.
        """
        ordered = values.double().sort().values
        n = len(ordered)
        low, high = float(ordered[0]), float(ordered[-1])
        # Of fewer than three values none is central. Later tails
        # keep more: sparse values vary in few rows only.
        for tail in CENTRAL_TAILS if n >= 3 else ():
            # Rounded up: one value at least is left out at each
            # end, so a single wrong one never sets a fence.
            cut = math.ceil(tail * n)
            low, high = float(ordered[cut]), float(ordered[n - 1 - cut])
            if high > low:
                break
        return cls._around(ordered, low, high, high - low)

    @classmethod
    def of_all_but_few(cls, values: Float[Tensor, "n"]) -> "PlausibleRange":
        """For what must be learned, falls and goals among it: a value that comes back is no outlier.

        The central part is all but 1 in 1,000 at each end, and at least two. Where it is a single value, its
        size stands for its width; where that is 0 (a sparse reward) nothing is an outlier.

        Args:
            values: `[n]`, n >= 1, finite.
        """
        ordered = values.double().sort().values
        n = len(ordered)
        cut = max(LEAST_FEW, math.ceil(FEW * n)) if n > 4 * LEAST_FEW else int(n >= 3)
        low, high = float(ordered[cut]), float(ordered[n - 1 - cut])
        return cls._around(ordered, low, high, (high - low) or abs(low) or math.inf)

    @classmethod
    def _around(cls, ordered: Tensor, low: float, high: float, width: float) -> "PlausibleRange":
        low, high = low - FENCE * width, high + FENCE * width
        # Never empty: the central part itself lies inside.
        inside = ordered[(ordered >= low) & (ordered <= high)]
        return cls(low, high, float(inside[0]), float(inside[-1]))

    def is_outlier(self, values: Float[Tensor, "n"]) -> Bool[Tensor, "n"]:
        """Which of the values lie beyond a fence."""
        return (values.double() < self.low) | (values.double() > self.high)

    def clip(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Outliers on the fence, float64: still beyond all others."""
        return values.double().clamp(self.low, self.high)

    def settle(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Outliers on the nearest value that is none, float64: statistics do not see them."""
        return values.double().clamp(self.least, self.largest).where(self.is_outlier(values), values.double())


def robust_scale(values: Float[Tensor, "n"]) -> float:
    """A size to measure values by: their deviation without outliers, and at least 1/5 of their mean size.

    Of values that hardly vary it is their mean size. Where no value is an outlier the scale is the population
    deviation, to the last bit. It is equivariant: values times c have c times the scale.

    Args:
        values: `[n]`, n >= 1.

    Returns:
        A positive number, units of the values: the deviation of all values where only a few differ from 0; 1
        where all are 0.
    """
    inside = PlausibleRange.of_most(values).settle(values)
    # Values that share a large level and vary little would be blown up by their deviation;
    # their mean size, or a fifth of it, is the floor.
    spread, size = float(inside.std(correction=0)), float(inside.abs().mean())
    scale = size if spread < LEAST_VARIATION * size else max(spread, LEAST_RATIO * size)
    return scale or float(values.double().std(correction=0)) or 1.0


def lower_bound(values: Float[Tensor, "e *b"], pessimism: float) -> Float[Tensor, "*b"]:
    """`mean_i x_i - pessimism std_i x_i` over members, the deviation without a correction; the mean at 0."""
    mean = values.mean(0)
    # Without: the least of two members is then their mean minus once their deviation.
    return mean if pessimism == 0 else mean - pessimism * values.std(0, correction=0)
