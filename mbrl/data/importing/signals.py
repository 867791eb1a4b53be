"""Values between rows: linear, held, averaged, differenced; and where nothing is known of them."""

import dataclasses
from typing import Final

import numpy as np
from numpy.typing import NDArray

GAP_INTERVALS: Final = 10.0
"""Usual intervals that a gap must exceed where the schema does not say."""

_ROUNDING: Final = 1e-6  # share of an interval within which a time is that of a row

Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One column against time.

    Attributes:
        time: `[n]` ascending, seconds; columns of a file share it.
        value: `[n]`.
        interval: usual seconds between rows; 0 for a single row.
    """

    time: Floats
    value: Floats
    interval: float

    def linear(self, at: Floats) -> Floats:
        """`[k]` linear between rows."""
        return np.interp(at, self.time, self.value)

    def held(self, at: Floats) -> Floats:
        """`[k]` value of the latest row."""
        rows = np.searchsorted(self.time, at + _ROUNDING * self.interval, side="right") - 1
        return self.value[np.maximum(rows, 0)]

    def mean(self, edges: Floats) -> Floats:
        """`[k - 1]` means between consecutive `edges` of the value that is held from row to row."""
        # The integral of a held value is linear between rows.
        integral = np.concatenate([[0.0], np.cumsum(self.value[:-1] * np.diff(self.time))])
        at = np.interp(edges, self.time, integral)
        return np.diff(at) / np.diff(edges)

    def largest(self, edges: Floats) -> Floats:
        """`[k - 1]` largest of the value held at the start of each stretch and those of its rows."""
        edges = edges + _ROUNDING * self.interval
        first = np.searchsorted(self.time, edges[:-1], side="right") - 1
        last = np.searchsorted(self.time, edges[1:], side="right")
        first = np.minimum(np.maximum(first, 0), np.maximum(last - 1, 0))
        bounds = np.stack([first, np.maximum(last, first + 1)], axis=1).reshape(-1)
        padded = np.append(self.value, -np.inf)
        return np.maximum.reduceat(padded, bounds)[::2]

    def rate(self, at: Floats, window: float) -> Floats:
        """`[k]` mean rate of change over the last `window` seconds, `(x(t) - x(t - window)) / window`."""
        return (self.linear(at) - self.linear(at - window)) / window

    def gaps(self, longest: float | None, least: float) -> Floats:
        """`[g, 2]` begin and end of every stretch without rows.

        Args:
            longest: seconds between rows that are no gap; None for ten usual intervals.
            least: seconds below which nothing is a gap in that case.
        """
        limit = max(GAP_INTERVALS * self.interval, least) if longest is None else longest
        rows = np.flatnonzero(np.diff(self.time) > limit * (1 + _ROUNDING))
        return np.stack([self.time[rows], self.time[rows + 1]], axis=1)


def usual_interval(time: Floats) -> float:
    """Median of the seconds between rows; 0 for a single row."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.0


def unwrapped(values: Floats) -> Floats:
    """Angles without jumps of a turn, rad."""
    return np.asarray(np.unwrap(values), dtype=np.float64)
