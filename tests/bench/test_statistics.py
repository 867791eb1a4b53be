"""Spreads and ratios by hand."""

import pytest

from mbrl.bench.statistics import Spread, paired_ratio


def test_spread_of_an_odd_and_an_even_number() -> None:
    assert Spread.of([3.0, 1.0, 10.0]) == Spread(3.0, 1.0, 10.0)
    assert Spread.of([3.0, 1.0, 10.0, 4.0]) == Spread(3.5, 1.0, 10.0)
    assert Spread.of([2.0]).to_json() == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is three times slower in the second round leaves the ratio as it is."""
    assert paired_ratio([30.0, 10.0, 30.0], [15.0, 5.0, 15.0]) == Spread(2.0, 2.0, 2.0)
    assert paired_ratio([4.0, 9.0, 8.0], [2.0, 3.0, 8.0]) == Spread(2.0, 1.0, 3.0)
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [1.0, 2.0])
