"""Normalised scores."""

import numpy as np
from numpy.typing import NDArray


def normalised_score(returns: NDArray[np.float64], ref_min: float, ref_max: float) -> NDArray[np.float64]:
    """Score of every episode, `100 (R - ref_min) / (ref_max - ref_min)` (Fu et al. 2020, section 4).

    Average the scores, and take their spread, after this map. A spread must not be sent through it: the
    offset belongs to a place on the scale, not to a width.

    Args:
        returns: `[n]`, undiscounted episode returns, raw reward units.
        ref_min: return that scores 0.
        ref_max: return that scores 100, above `ref_min`.

    Raises:
        ValueError: the references are not in order.
    """
    if not ref_min < ref_max:
        raise ValueError(f"ref_min {ref_min} must lie below ref_max {ref_max}")
    return 100.0 * (np.asarray(returns, dtype=np.float64) - ref_min) / (ref_max - ref_min)
