"""Angles, ticks, sensors."""

import dataclasses

import numpy as np
import pytest

from mbrl.data.importing.guess.columns import find_tick, find_turn
from mbrl.data.inspection.signs.angles import find_turns, find_wraps
from mbrl.data.inspection.signs.sensors import find_dead, find_saturation, find_stuck, runs_of
from mbrl.data.inspection.signs.ticks import find_ticks
from tests.data.inspection.records import STEP, clean, edited, only


@pytest.mark.parametrize(("turn", "scale"), [(2 * np.pi, ""), (360.0, "scale: 0.017453292519943295, ")])
def test_wraps(turn: float, scale: str):
    angle = np.linspace(0, 3.3, 600) * turn  # three turns and a third: jumps behind 0.5, 1.5 and 2.5 turns

    def wrapped(index: int, values: np.ndarray) -> None:
        if index == 0:
            values[:, 0] = (angle + turn / 2) % turn - turn / 2
        else:
            values[:, 0] = np.clip(values[:, 0], -turn / 2, turn / 2)

    record = edited(clean(2), wrapped)
    found = only(list(find_wraps(record)))
    assert found.channels == ("x",)
    assert f"it jumps by a turn ({turn:.4g}) 3 times" in found.text
    assert found.remedy.startswith(f"{{column: pos_x, {scale}wrap: cossin}}")
    assert len(found.places) == 3
    assert find_turn(record.column(0)) == turn


def test_turns_of_angles_that_count_on():
    channels = (dataclasses.replace(clean().channels[0], unit="rad"), *clean().channels[1:])
    record = edited(clean(2), lambda _, values: values.__setitem__((slice(None), 0), np.linspace(-1, 7, 600)))
    found = only(list(find_turns(dataclasses.replace(record, channels=channels))))
    assert "x (-1 to 7)" in found.text
    assert "wrap: cossin" in found.remedy
    assert list(find_turns(record)) == []  # metres are no angle


@pytest.mark.parametrize("tick", [2 * np.pi / 2048, 0.25, 3e-5])
def test_find_tick(tick: float):
    values = tick * np.round(np.random.default_rng(0).normal(scale=30, size=5000))
    assert find_tick(values) == pytest.approx(tick, rel=1e-6)
    assert find_tick(values.astype(np.float32).astype(np.float64)) == pytest.approx(tick, rel=1e-4)


def test_no_tick_of_measurements_or_digits():
    values = np.random.default_rng(0).normal(size=5000)
    assert find_tick(values) is None
    assert find_tick(np.round(values, 3)) is None  # digits of a text


def test_ticks_and_the_velocity_that_they_leave():
    tick = 0.01

    def quantised(_: int, values: np.ndarray) -> None:
        values[:, 0] = 1.02 * tick * np.round(values[:, 0] / (1.02 * tick))
        values[:, 1] = np.random.default_rng(1).normal(size=len(values))  # no velocity is logged

    record = edited(clean(), quantised)
    found = only(list(find_ticks(record)))
    assert "x is quantised in steps of 0.0102: a difference over one row of 20 ms" in found.text
    assert f"in steps of {1.02 * tick / STEP:.3g} per second" in found.text
    assert "derivative: pos_x, window: 0." in found.remedy


def test_a_logged_velocity_makes_ticks_a_note():
    record = edited(
        clean(), lambda _, v: v.__setitem__((slice(None), 0), 0.0102 * np.round(v[:, 0] / 0.0102))
    )
    found = only(list(find_ticks(record)))
    assert found.severity == "note"
    assert found.remedy.startswith("Take the logged velocity, v,")


def test_runs_of():
    starts, lengths = runs_of(np.array([1.0, 1.0, 2.0, 3.0, 3.0, 3.0]))
    assert starts.tolist() == [0, 2, 3]
    assert lengths.tolist() == [2, 1, 3]


def test_a_stuck_sensor_with_its_place():
    def stuck(index: int, values: np.ndarray) -> None:
        if index == 2:
            values[100:250, 0] = values[100, 0]

    found = only(list(find_stuck(edited(clean(), stuck))))
    assert (
        "x is stuck 1 times while other channels move, the longest for 150 rows from 2 s in run2"
        in found.text
    )
    (place,) = found.places
    assert (place.episode, place.start, place.stop, place.channel) == (2, 2.0, pytest.approx(4.98), "x")


def test_a_machine_at_rest_is_not_stuck():
    assert (
        list(find_stuck(edited(clean(), lambda _, values: values.__setitem__(slice(100, 250), values[100]))))
        == []
    )


def test_a_signal_that_is_often_off_is_not_stuck():
    def off(_: int, values: np.ndarray) -> None:
        values[100:200, 0] = values[300:420, 0] = 0.0

    assert list(find_stuck(edited(clean(), off))) == []


def test_dead_channels():
    record = edited(clean(), lambda _, values: values.__setitem__((slice(None), [1, 2]), 3.0))
    observation, action = find_dead(record)
    assert (observation.channels, observation.severity) == (("v",), "note")
    assert (action.channels, action.severity) == (("u",), "warning")


def test_saturation_names_the_rails():
    record = edited(clean(), lambda _, v: v.__setitem__((slice(None), 2), np.clip(v[:, 2], -1.5, 1.5)))
    found = only(list(find_saturation(record)))
    assert found.channels == ("u",)
    assert "u at -1.5 (" in found.text
    assert "{column: cmd, low: -1.5, high: 1.5}" in found.remedy
    clipped = edited(clean(), lambda _, v: v.__setitem__((slice(None), 1), np.minimum(v[:, 1], 0.4)))
    assert only(list(find_saturation(clipped))).severity == "warning"
