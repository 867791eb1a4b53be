import math
from pathlib import Path

import pytest
import torch

from mbrl.core.errors import NonFiniteError
from mbrl.run.metrics import DivergenceAlarm, MetricFile, MetricSums, read_metrics, refuse_non_finite


def t(value: float) -> torch.Tensor:
    return torch.tensor(value)


def test_means_over_the_steps_that_reported_and_extremes() -> None:
    sums = MetricSums()
    sums.add({"a": t(1.0), "v_max": t(-5.0), "v_min": t(2.0)})
    sums.add({"a": t(2.0), "v_max": t(-7.0), "v_min": t(3.0)})
    sums.add({"b": t(10.0)})
    assert sums.averages() == {"a": 1.5, "v_max": -5.0, "v_min": 2.0, "b": 10.0}


def test_sums_do_not_change_what_was_reported_and_survive_their_state() -> None:
    sums, value = MetricSums(), t(1.0)
    sums.add({"a": value})
    sums.add({"a": t(4.0)})
    assert float(value) == 1.0
    other = MetricSums()
    other.load_state_dict(sums.state_dict())
    other.add({"a": t(1.0)})
    assert other.averages() == {"a": 2.0}
    assert sums.averages() == {"a": 2.5}
    sums.clear()
    assert sums.averages() == {}


def test_small_numbers_are_not_lost_in_long_sums() -> None:
    sums = MetricSums()
    sums.add({"a": t(1e8)})
    for _ in range(100):
        sums.add({"a": t(1.0)})
    assert sums.averages()["a"] == pytest.approx((1e8 + 100) / 101, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("rollout/reward", "dynamics model"),
        ("critic/loss", "critics diverged"),
        ("policy/loss", "learning rate"),
    ],
)
def test_a_nan_is_named_with_its_updates_and_cause(name: str, cause: str) -> None:
    with pytest.raises(NonFiniteError, match=rf"between update 11 and 20: {name} \(nan\).*{cause}.*Kept\."):
        refuse_non_finite({"x": 1.0, name: math.nan}, first=11, last=20, kept="Kept.")
    refuse_non_finite({"x": 1.0}, first=1, last=2, kept="")


def test_the_alarm_rings_once_for_each_excursion() -> None:
    alarm = DivergenceAlarm((0.0, 100.0))
    assert alarm.check(1, {"critic/value": 50.0, "critic/value_max": 104.0}) is None  # within the slack
    message = alarm.check(2, {"critic/value": 60.0, "critic/value_max": 106.0})
    assert message is not None
    assert "at update 2: critic/value_max = 106" in message
    assert "0 to 100" in message
    assert alarm.check(3, {"critic/value": 300.0}) is None  # the same excursion
    assert alarm.check(4, {"policy/loss": 1.0}) is None
    assert alarm.check(5, {"critic/value": 50.0}) is None
    assert alarm.check(6, {"critic/value": -6.0}) is not None
    assert [entry["step"] for entry in alarm.excursions] == [2, 6]
    other = DivergenceAlarm((0.0, 100.0))
    other.load_state_dict(alarm.state_dict())
    assert other.check(7, {"critic/value": -6.0}) is None


def test_without_bounds_there_is_no_alarm() -> None:
    assert DivergenceAlarm(None).check(1, {"critic/value": 1e30}) is None


def test_a_resume_cuts_the_file_back(tmp_path: Path) -> None:
    file = MetricFile(tmp_path)
    file.write(1, {"a": 1.0})
    position = file.sync()
    file.write(2, {"a": 2.0})
    file.close()
    file = MetricFile(tmp_path, position=position, step=1)
    file.write(2, {"a": 3.0})
    file.close()
    assert read_metrics(tmp_path) == [{"step": 1, "a": 1.0}, {"step": 2, "a": 3.0}]


def test_tensorboard_shows_every_step_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    file = MetricFile(tmp_path)
    for step in (1, 2, 3):
        file.write(step, {"a": float(step)})
    file.close()
    file = MetricFile(tmp_path, position=0, step=1)
    for step in (2, 3):
        file.write(step, {"a": 10.0 * step})
    file.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("a")] == [(1, 1.0), (2, 20.0), (3, 30.0)]


def test_a_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "a"')
    assert read_metrics(tmp_path) == [{"step": 1}]
