import dataclasses

import numpy as np
import pytest

from mbrl.data.inspection.record import ClockFault
from mbrl.data.inspection.signs.clocks import find_gaps, find_jitter, find_rates, find_resets
from tests.data.inspection.records import STEP, clean, only, retimed


def test_rates_that_differ_by_file():
    record = retimed(clean(), lambda index, time: time * (4.0 if index == 3 else 1.0))
    found = only(list(find_rates(record)))
    assert "rows are 20 to 80 ms apart by file" in found.text
    assert "the slowest run3" in found.text
    assert found.remedy.endswith("rate: 12.")  # 12.5 per second is that of the slowest file
    assert found.chart is not None
    assert max(found.chart.curves[0].y) == pytest.approx(80.0)


def test_jitter_is_measured_without_gaps():
    generator = np.random.default_rng(0)
    spread = 0.2 * STEP

    def shaken(index: int, time: np.ndarray) -> np.ndarray:
        steps = STEP + spread * np.sign(generator.normal(size=len(time)))
        return np.cumsum(steps) if index == 0 else time

    found = only(list(find_jitter(retimed(clean(2), shaken))))
    assert "in 1 of 2 runs: in run0" in found.text
    paused = retimed(clean(2), lambda _, time: time + 5.0 * (time > 3.0))
    assert list(find_jitter(paused)) == []


def test_gaps_with_their_row():
    record = retimed(clean(3), lambda index, time: time + (1.0 if index == 1 else 0.0) * (time > 4.0))
    found = only(list(find_gaps(record)))
    assert (
        "1 pauses are longer than 4 usual intervals; the longest, 1.02e+03 ms, follows row 200" in found.text
    )
    assert found.severity == "warning"
    assert found.remedy.startswith("max_gap: 0.05")
    (place,) = found.places
    assert (place.episode, place.start, place.stop) == (1, pytest.approx(4.0), pytest.approx(5.02))


def test_a_short_pause_is_a_note():
    record = retimed(clean(3), lambda index, time: time + (0.1 if index == 1 else 0.0) * (time > 4.0))
    assert only(list(find_gaps(record))).severity == "note"


def test_resets_and_repeats():
    record = dataclasses.replace(
        clean(),
        resets=(ClockFault(2, 17, 8.5, 0.0),),
        repeats=(ClockFault(1, 9, 0.14, 0.14), ClockFault(1, 11, 0.16, 0.16)),
    )
    reset, repeat = find_resets(record)
    assert "goes back 1 times, first from 8.5 s to 0 s at row 17 of run2" in reset.text
    assert "restarts: new_episode" in reset.remedy
    assert "2 stamps equal the one above them, first 0.14 s at row 9 of run1" in repeat.text
    assert "repeated: drop" in repeat.remedy
