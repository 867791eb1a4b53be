import numpy as np
import pytest

from mbrl.data.importing.signals import Signal, unwrapped, usual_interval


def make(time, value) -> Signal:
    stamps = np.asarray(time, dtype=np.float64)
    return Signal(stamps, np.asarray(value, dtype=np.float64), usual_interval(stamps))


def test_linear_and_held():
    signal = make([0, 1, 3], [10, 20, 40])
    np.testing.assert_allclose(signal.linear(np.array([0.5, 2.0, 3.0])), [15, 30, 40])
    np.testing.assert_array_equal(signal.held(np.array([0.0, 0.999, 1.0, 2.9, 3.0])), [10, 10, 20, 20, 40])


def test_a_time_that_is_a_row_but_for_rounding_holds_that_row():
    signal = make([0.1, 0.2, 0.3], [1, 2, 3])
    assert signal.held(np.array([0.1 + 0.1 + 0.1 - 1e-12])).tolist() == [3]


def test_the_mean_of_a_held_value_is_weighted_by_time():
    # 10 during [0, 1), 20 during [1, 3), 40 from 3 on
    signal = make([0, 1, 3, 4], [10, 20, 40, 40])
    np.testing.assert_allclose(signal.mean(np.array([0.0, 2.0, 4.0])), [15, 30])
    np.testing.assert_allclose(signal.mean(np.array([1.25, 1.5])), [20])


def test_rate_of_change_is_the_mean_over_the_window():
    signal = make([0, 1, 2, 3], [0, 1, 4, 9])
    np.testing.assert_allclose(signal.rate(np.array([2.0, 3.0]), 2.0), [2, 4])


def test_a_tick_of_an_encoder_is_divided_by_the_window():
    tick = 2 * np.pi / 2048
    time = 0.002 * np.arange(100)
    signal = make(time, tick * np.round(3.0 * time / tick))
    assert np.abs(signal.rate(time[20:], 0.002) - 3.0).max() > 1.0
    assert np.abs(signal.rate(time[20:], 0.02) - 3.0).max() <= tick / 0.02


def test_gaps():
    signal = make([0, 1, 2, 20, 21], [0] * 5)
    np.testing.assert_array_equal(signal.gaps(None, 0.0), [[2, 20]])
    assert len(signal.gaps(18.0, 0.0)) == 0
    assert len(signal.gaps(None, 100.0)) == 0


def test_the_largest_value_within_a_step():
    signal = make([0, 1, 2, 3, 4], [0, 0, 1, 0, 0])
    assert signal.largest(np.array([0.0, 1.5, 3.0, 4.0])).tolist() == [0, 1, 0]


def test_angles_are_unwrapped():
    angle = np.linspace(0, 20, 200)
    np.testing.assert_allclose(unwrapped((angle + np.pi) % (2 * np.pi) - np.pi), angle, atol=1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_short_signals(count: int):
    signal = make(np.arange(count), np.arange(count))
    assert signal.interval == count - 1
    assert len(signal.gaps(None, 0.0)) == 0
