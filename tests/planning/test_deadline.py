"""A clock that the test turns."""

import itertools
import math
from collections.abc import Hashable

import pytest

from mbrl.planning.base import Budget
from mbrl.planning.deadline import Cost, Deadline, halve


class Hands:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def known(**seconds: float) -> dict[Hashable, Cost]:
    return {work: Cost(value, runs=2) for work, value in seconds.items()}


def test_work_fits_with_a_margin_and_with_what_must_follow():
    clock, costs = Hands(), known(round=0.010, finish=0.002)
    deadline = Deadline(Budget(milliseconds=20.0), clock, costs)
    assert deadline.permits("round", "finish")
    clock.seconds += 0.005
    assert not deadline.permits("round", "finish")  # 5 + 1.3 * 12 > 20
    assert deadline.cost("round") == pytest.approx(0.0098)
    assert deadline.cost("finish") == pytest.approx(0.00196)
    assert deadline.permits("round")
    assert deadline.is_hit
    assert deadline.milliseconds == pytest.approx(5.0)


def test_costs_are_smoothed_and_refusals_slowly_forgotten():
    clock, costs = Hands(), {}
    deadline = Deadline(Budget(milliseconds=50.0), clock, costs)
    assert deadline.permits("round")  # unknown work is tried
    for seconds in (3.0, 0.100, 0.010):
        with deadline.timed("round"):
            clock.seconds += seconds
    assert deadline.cost("round") == pytest.approx(0.100 + 0.3 * (0.010 - 0.100))
    refused = 0
    while not Deadline(Budget(milliseconds=50.0), clock, costs).permits("round"):
        refused += 1
    assert refused == math.ceil(math.log(0.050 / 1.3 / 0.073) / math.log(0.98))


def test_what_rested_is_new_again():
    """It left the caches: were the slow run after a rest a measure, it would be refused again at once."""
    clock, costs = Hands(), known(round=0.100)
    while not (deadline := Deadline(Budget(milliseconds=20.0), clock, costs)).permits("round"):
        pass
    with deadline.timed("round"):
        clock.seconds += 0.040
    assert deadline.cost("round") is None
    again = Deadline(Budget(milliseconds=20.0), clock, costs)
    assert again.permits("round")
    with again.timed("round"):
        clock.seconds += 0.008
    assert again.cost("round") == pytest.approx(0.008)


def test_what_never_fits_is_attempted_ever_more_rarely():
    clock, costs = Hands(), {}
    late, calls = [], 3000
    for call in range(calls):
        deadline = Deadline(Budget(milliseconds=20.0), clock, costs)
        if deadline.permits("round"):
            with deadline.timed("round"):
                clock.seconds += 0.040
            late.append(call)
    assert len(late) / calls < 0.01
    gaps = [after - before for before, after in itertools.pairwise(late) if after - before > 1]
    assert gaps == sorted(gaps)
    for _ in range(40):  # now it fits: steady runs make a later refusal short again
        deadline = Deadline(Budget(milliseconds=60.0), clock, costs)
        with deadline.timed("round"):
            clock.seconds += 0.010
    assert costs["round"].patience == 1.0


def test_one_slow_run_counts_as_twice_the_others():
    clock, costs = Hands(), known(round=0.010)
    deadline = Deadline(Budget(milliseconds=20.0), clock, costs)
    assert not deadline.permits("round", "round")  # one refusal is no rest
    with deadline.timed("round"):
        clock.seconds += 1.0
    assert deadline.cost("round") == pytest.approx(0.013)


def test_a_slow_first_run_is_no_measure():
    clock, costs = Hands(), {}
    first = Deadline(Budget(milliseconds=20.0), clock, costs)
    with first.timed("round"):
        clock.seconds += 2.0
    assert first.cost("round") is None
    second = Deadline(Budget(milliseconds=20.0), clock, costs)
    assert second.permits("round")
    with second.timed("round"):
        clock.seconds += 0.008
    assert second.cost("round") == pytest.approx(0.008)
    assert Deadline(Budget(milliseconds=20.0), clock, costs).permits("round")


def test_rounds_are_timed_and_end_while_what_follows_still_fits():
    clock, costs = Hands(), known(finish=0.002, round=0.004)
    deadline = Deadline(Budget(milliseconds=20.0), clock, costs)
    done: list[int] = []
    for index in deadline.repeat("round", 9, then="finish"):
        clock.seconds += 0.004
        done.append(index)
    assert done == [0, 1, 2, 3]  # 12 + 1.3 * 6 < 20 < 16 + 1.3 * 6
    assert deadline.is_hit
    assert deadline.cost("round") == pytest.approx(0.98 * 0.004)


def test_a_call_that_does_all_its_rounds_hits_no_deadline():
    clock = Hands()
    deadline = Deadline(Budget(milliseconds=20.0), clock, {})
    for _ in deadline.repeat("round", 2, then="finish"):
        clock.seconds += 0.008
    assert not deadline.is_hit


def test_sizes_halve_down_to_the_least():
    assert halve(100, 12) == [100, 50, 25, 12]
    assert halve(3, 5) == [3]


def test_without_milliseconds_nothing_is_refused():
    deadline = Deadline(Budget(sims=3), None, known(round=1e9))
    assert deadline.cost("round") == 1e9
    assert deadline.cost("other") is None
    assert deadline.permits("round")
    assert list(deadline.repeat("round", 3, then="finish")) == [0, 1, 2]
    assert math.isnan(deadline.milliseconds)
    with pytest.raises(ValueError, match="clock"):
        Deadline(Budget(milliseconds=1.0), None, {})


OPTIONS = [(4, "4", 2), (8, "8", 2), (16, "16", 2)]


def test_without_a_limit_of_time_everything_is_affordable_whatever_the_clock_says():
    slow = known(**{"4": 1e6, "8": 1e6, "16": 1e6})
    assert Deadline(Budget(sims=9), Hands(), slow).most_affordable(OPTIONS) == 16
    assert Deadline(Budget(sims=9), Hands(), {}).most_affordable(OPTIONS) == 16
    assert Deadline(Budget(sims=9), None, {}).most_affordable(OPTIONS) == 16


@pytest.mark.parametrize(
    ("costs", "then", "expected"),
    [
        ({}, 0.0, 4),  # new work begins small
        ({"4": 0.001}, 0.0, 16),  # 2 * 4 ms are expected of 16, which were never tried
        ({"4": 0.004}, 0.0, 8),  # 1.3 * 2 * 8 ms fit in 30 ms, twice as much does not
        ({"4": 0.004}, 0.012, 4),
        ({"4": 0.001, "8": 0.050}, 0.0, 4),  # what was timed counts
        ({"4": 9.0}, 0.0, 4),  # the least is given back all the same
    ],
)
def test_the_largest_that_should_fit(costs, then, expected):
    deadline = Deadline(Budget(milliseconds=30.0), Hands(), known(**costs))
    assert deadline.most_affordable(OPTIONS, then=then) == expected
