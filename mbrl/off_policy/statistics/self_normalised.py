"""Statistics of sums of self-normalised means, `theta = sum_c d_c (sum_i w_ic x_ic) / (sum_i w_ic)`.

WIS is one such column, PDWIS one for each step, WDR two. Each of them streams its columns as `Term`s; the
point, its influence values, the jackknife and the bootstrap, which renormalises every draw, are written once.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from mbrl.off_policy.log.layout import Array

_DRAW_ENTRIES = 4_000_000
"""Entries of the counts that are multiplied at once."""

_DOMINANT_SHARE = 0.99


class Term(NamedTuple):
    """Some columns: normalised weights, what they weigh, and each column's factor."""

    share: Array  # [n, k], columns sum to 1
    payload: Array  # [n, k]
    factor: Array  # [k]


Terms: TypeAlias = Callable[[], Iterator[Term]]
"""Starts the stream again."""


def influence_values(terms: Terms, n: int) -> Array:
    """Influence of each episode, `theta + n sum_c d_c w_ic (x_ic - m_c)`; the mean is theta (delta method).

    Args:
        terms: the columns; m_c is a column's weighted mean.
        n: episodes.

    Returns:
        `[n]`; NaN where every weight of a column is 0.
    """
    point, influence = 0.0, np.zeros(n)
    for share, payload, factor in terms():
        # m_c = sum_i w_ic x_ic, and d_c w_ic (x_ic - m_c) = d_c (w_ic x_ic - w_ic m_c).
        product = share * payload
        mean = product.sum(0)
        point += float(mean @ factor)
        product -= share * mean
        influence += product @ factor
    return point + n * influence


def self_normalised_se(influence: Array) -> float:
    """`sqrt(sum_i (influence_i - theta)^2) / n`, the delta method's standard error."""
    return float(np.sqrt(np.square(influence - influence.mean()).sum()) / influence.size)


def jackknife(terms: Terms, n: int) -> tuple[Array, float]:
    """`theta` without each episode in turn, in closed form, `sum_c d_c (m_c - w_ic x_ic) / (1 - w_ic)`.

    Returns:
        `[n]` values, and the largest share of any episode in any column.
    """
    without, largest = np.zeros(n), 0.0
    for share, payload, factor in terms():
        # Without episode i the weights of a column sum to 1 - w_ic.
        product = share * payload
        largest = max(largest, float(share.max()))
        with np.errstate(divide="ignore", invalid="ignore"):
            without += ((product.sum(0) - product) / (1.0 - share)) @ factor
    return without, largest


def is_dominated(largest_share: float) -> bool:
    """Whether one episode carries nearly a whole column, so that leaving it out says nothing."""
    return largest_share > _DOMINANT_SHARE


def bootstrap_values(terms: Terms, counts: Array) -> Array:
    """`theta` of resampled episodes; every draw is normalised anew.

    Args:
        terms: the columns.
        counts: `[draws, n]`, how often each episode was drawn.

    Returns:
        `[draws]`; NaN where the drawn episodes have no weight.
    """
    draws, n = counts.shape
    values = np.zeros(draws)
    # Resamples in blocks: `[draws, n]` counts times `[n, k]` columns is one matrix product a block.
    rows = max(1, _DRAW_ENTRIES // n)
    for share, payload, factor in terms():
        product = share * payload
        for start in range(0, draws, rows):
            # (sum_i k_i w_ic x_ic) / (sum_i k_i w_ic) with counts k: the draw's own normaliser.
            drawn = counts[start : start + rows]
            with np.errstate(divide="ignore", invalid="ignore"):
                means = (drawn @ product) / (drawn @ share)
            values[start : start + rows] += means @ factor
    return values


def draw_counts(n: int, draws: int, rng: np.random.Generator) -> Array:
    """`[draws, n]` multinomial counts: how often each of n episodes enters a resample of n."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=draws).astype(np.float64)
