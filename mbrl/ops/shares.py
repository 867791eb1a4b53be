"""Shares: of counted events, and of a batch."""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(share: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of n cases (1927); not empty even where no event was seen."""
    # Solves |p - share| = z sqrt(p (1 - p) / n) for p: the deviation is that of p, so 0 events leave room.
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mixture_counts(shares: Sequence[float], batch_size: int) -> list[int]:
    """Rows of each share in a batch; cumulative shares are rounded, so that no count is negative.

    Args:
        shares: non-negative; they add up to 1, and the counts to `batch_size`.
        batch_size: rows of the batch.
    """
    edges = [round(batch_size * min(edge, 1.0)) for edge in itertools.accumulate(shares)]
    return [upper - lower for lower, upper in itertools.pairwise([0, *edges])]
