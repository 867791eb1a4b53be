"""A clock that the test turns."""

import math

import pytest

from mbrl.planning.base import Budget
from mbrl.planning.deadline import Deadline


class Hands:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_work_fits_with_a_margin_and_with_what_must_follow():
    clock, costs = Hands(), {"round": 0.010, "finish": 0.002}
    deadline = Deadline(Budget(milliseconds=20.0), clock, costs)
    assert deadline.permits("round", then="finish")
    clock.seconds += 0.005
    assert not deadline.permits("round", then="finish")  # 5 + 1.3 * 12 > 20
    assert deadline.permits("round")
    assert deadline.is_hit
    assert deadline.milliseconds == pytest.approx(5.0)


def test_costs_are_smoothed_and_refusals_slowly_forgotten():
    clock, costs = Hands(), {}
    deadline = Deadline(Budget(milliseconds=50.0), clock, costs)
    assert deadline.permits("round")  # unknown work is tried
    for seconds in (0.100, 0.010):
        deadline.begin()
        clock.seconds += seconds
        deadline.done("round")
    assert costs["round"] == pytest.approx(0.100 + 0.3 * (0.010 - 0.100))
    refused = 0
    while not Deadline(Budget(milliseconds=50.0), clock, costs).permits("round"):
        refused += 1
    assert refused == math.ceil(math.log(0.050 / 1.3 / 0.073) / math.log(0.98))


def test_without_milliseconds_nothing_is_refused():
    deadline = Deadline(Budget(sims=3), None, {"round": 1e9})
    assert deadline.cost("round") == 1e9
    assert deadline.cost("other") is None
    assert deadline.permits("round")
    assert math.isnan(deadline.milliseconds)
    with pytest.raises(ValueError, match="clock"):
        Deadline(Budget(milliseconds=1.0), None, {})
