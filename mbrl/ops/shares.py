"""Shares of counted events."""

import math
from statistics import NormalDist


def wilson_interval(share: float, n: float, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of n cases (1927); not empty even where no event was seen."""
    # Solves |p - share| = z sqrt(p (1 - p) / n) for p: the deviation is that of p, so 0 events leave room.
    z = NormalDist().inv_cdf(0.5 + level / 2)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
