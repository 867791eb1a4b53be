"""The rule that takes one candidate or none, on values that are known."""

import math

import numpy as np
import pytest

from mbrl.off_policy.value.judged import JudgedValue
from mbrl.study.auto.choice import Behaviour, choose_candidate, gain_bound

BEHAVIOUR = Behaviour(10.0, 0.0, 50)


def judged(by_member: list[float], starts: int = 4, spread: float = 0.0) -> JudgedValue:
    """Two judges of equally many members; starts alternate by `+-spread` around each member's mean."""
    wave = spread * np.where(np.arange(starts) % 2 == 0, 1.0, -1.0)
    returns = np.array(by_member)[:, None] + wave
    shape = returns.shape
    judge = np.arange(len(by_member)) // (len(by_member) // 2)
    return JudgedValue(returns, judge, np.ones(shape, np.int64), np.zeros(shape, bool))


def choose(*values: JudgedValue, behaviour: Behaviour | None = BEHAVIOUR, ties: float = 1.0):
    return choose_candidate(values, behaviour, pessimism=1.0, tie_errors=ties)


def test_the_gain_is_bounded_by_all_three_spreads():
    value = judged([20.0, 22.0, 18.0, 20.0], spread=2.0)
    members, starts = np.std([20, 22, 18, 20], ddof=1), np.std([2, -2, 2, -2], ddof=1) / 2
    by_hand = 20.0 - 12.0 - 1.5 * math.sqrt(members**2 + starts**2 + 0.5**2)
    assert gain_bound(value, Behaviour(10.0, 0.5, 9, judged=12.0), 1.5) == pytest.approx(by_hand)
    assert Behaviour(10.0, 0.5, 9, judged=8.0).reference == 10.0


def test_the_largest_lower_bound_wins():
    found = choose(judged([12.0] * 4), judged([25.0, 27.0, 25.0, 27.0]), judged([60.0, 0.0, 60.0, 0.0]))
    assert (found.best, found.taken) == (1, 1)
    assert found.gains[0] == pytest.approx(2.0)
    assert found.gains[2] < 0


def test_a_simpler_candidate_that_is_as_good_comes_first():
    simple, best = judged([20.0, 21.0, 22.0, 23.0]), judged([20.5, 21.2, 21.9, 23.6])
    found = choose(simple, best)  # differences .5, .2, -.1, .6: mean .3, standard error .158
    assert (found.best, found.taken) == (1, 1)
    found = choose(simple, best, ties=2.0)
    assert (found.best, found.taken) == (1, 0)
    assert "simplest" in found.reason
    assert choose(judged([5.0] * 4), best, ties=10.0).taken == 1  # it is no better than the behaviour


def test_nothing_is_taken_unless_it_is_better_than_the_behaviour():
    found = choose(judged([9.0] * 4), judged([13.0, 9.0, 13.0, 9.0]))
    assert found.gains == pytest.approx((-1.0, 1.0 - math.sqrt(16 / 3)))
    assert (found.best, found.taken) == (0, None)
    assert "keep what you have" in found.reason
    bright = Behaviour(10.0, 0.0, 50, judged=30.0)
    assert choose(judged([20.0] * 4), behaviour=bright).taken is None
    assert choose(judged([20.0] * 4)).taken == 0


def test_every_judge_must_find_it_better():
    split = judged([40.0, 40.0, 9.0, 9.0])
    assert split.by_judge.tolist() == [40.0, 9.0]
    found = choose_candidate([split], BEHAVIOUR, pessimism=0.1, tie_errors=1.0)
    assert found.gains[0] > 0
    assert found.taken is None
    assert "judge 1" in found.reason


def test_a_model_that_breaks_down_is_not_taken():
    broken = judged([math.nan, 50.0, 50.0, 50.0])
    found = choose(broken, judged([12.0] * 4))
    assert (found.best, found.taken) == (1, 1)
    assert math.isnan(found.gains[0])
    assert choose(broken).taken is None


def test_without_complete_episodes_nothing_is_taken():
    assert Behaviour.of(np.array([3.0])) is None
    known = Behaviour.of(np.array([3.0, 5.0]), judged=1.0)
    assert known is not None
    assert (known.mean, known.error, known.episodes) == (4.0, pytest.approx(1.0), 2)
    found = choose(judged([1.0] * 4), judged([2.0] * 4), behaviour=None)
    assert (found.best, found.taken) == (1, None)
    assert "two complete episodes" in found.reason
