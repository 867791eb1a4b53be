"""Figures of repeated windows: medians, with the range that was seen."""

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """The middle and the ends of repeated measurements.

    Attributes:
        median: the middle.
        low: the least.
        high: the largest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def to_json(self) -> dict[str, float]:
        """Plain values."""
        return dataclasses.asdict(self)


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Spread of `a_k / b_k` over windows k that ran one after the other.

    A machine that is busy for a while slows both of a pair: their ratio stays, the ratio of the two medians
    need not.

    Raises:
        ValueError: the lengths differ.
    """
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])
