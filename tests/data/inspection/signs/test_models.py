import dataclasses

import numpy as np
import pytest

from mbrl.data.inspection.record import Channel, Record
from mbrl.data.inspection.signs.models import find_measured_commands, find_models
from mbrl.data.inspection.steps import MAX_LAG, control_steps
from tests.data.inspection.records import STEP, clean, edited, only


def found(record: Record, kind: str) -> list[str]:
    return [finding.text + finding.remedy for finding in find_models(record) if finding.kind == kind]


def without(record: Record, name: str) -> Record:
    kept = [k for k, channel in enumerate(record.channels) if channel.name != name]
    channels = tuple(record.channels[k] for k in kept)
    return dataclasses.replace(edited(record, lambda _, values: values[:, kept]), channels=channels)


def test_windows_are_what_was_logged():
    record = clean(4, 100)
    steps = control_steps(record)
    assert steps is not None
    assert steps.obs.shape == (4 * (99 - MAX_LAG), MAX_LAG + 2, 2)
    assert steps.is_held_out.sum() == 99 - MAX_LAG  # the fourth run
    whole = np.concatenate([trace.values[MAX_LAG:-1, 0] for trace in record.traces])
    assert steps.obs[:, -2, 0] * whole.std() == pytest.approx(whole)
    moved = np.concatenate([np.diff(trace.values[MAX_LAG:, 0]) for trace in record.traces])
    assert steps.change[:, 0] * whole.std() == pytest.approx(moved)


def test_held_out_error_of_a_linear_law_is_nothing_and_of_noise_one():
    steps = control_steps(clean())
    assert steps is not None
    exact = np.concatenate([steps.change, np.ones((len(steps.change), 1))], axis=1)
    assert steps.held_out_error(exact) == pytest.approx([0.0, 0.0], abs=1e-3)
    noise = np.random.default_rng(0).normal(size=(len(steps.change), 1))
    assert steps.held_out_error(noise) == pytest.approx([1.0, 1.0], abs=0.05)


def test_missing_velocities_ask_for_history():
    (text,) = found(without(clean(), "v"), "hidden_state")
    assert "history: 2" in text
    assert found(clean(), "hidden_state") == []


@pytest.mark.parametrize("delay", [1, 3, 5])
def test_delay_from_command_to_response(delay: int):
    (text,) = found(clean(delay=delay), "delay")
    plural = "step" if delay == 1 else "steps"
    assert f"with a delay of {delay} {plural} ({1e3 * delay * STEP:.3g} ms)" in text


def test_no_delay_where_only_velocities_are_missing():
    assert found(without(clean(), "v"), "delay") == []


def test_actions_that_explain_nothing():
    (text,) = found(clean(gain=0.0), "inert_actions")
    assert text.startswith("u explains no change of the observations")
    record = clean()
    noise = np.random.default_rng(99)
    wider = edited(record, lambda _, v: np.concatenate([v, noise.normal(size=(len(v), 1))], axis=1))
    wider = dataclasses.replace(wider, channels=(*record.channels, Channel("w", "action", "w")))
    (other,) = found(wider, "inert_actions")
    assert other.startswith("w explains")


def chosen(gain: float) -> Record:
    """Pushes to the left, none, and to the right, of which the middle one changes nothing."""
    record = clean(gain=gain)
    signs = edited(
        record, lambda _, v: np.column_stack([v[:, :2], *(np.sign(v[:, 2]) == k for k in (-1, 0, 1))])
    )
    channels = (*record.channels[:2], *(Channel(name, "action") for name in ("left", "none", "right")))
    return dataclasses.replace(signs, channels=channels, are_choices=True)


def test_choices_are_asked_together():
    assert found(chosen(1.0), "inert_actions") == []
    (text,) = found(chosen(0.0), "inert_actions")
    assert text.startswith("The choice explains no change of the observations")


def test_a_measurement_of_a_command():
    record = clean()

    def measured(_: int, values: np.ndarray) -> np.ndarray:
        values[-1, 2] = 0.0
        late = 0.9 * np.concatenate([np.zeros(3), values[:-3, 2]])
        return np.concatenate([values, late[:, None]], axis=1)

    wider = dataclasses.replace(
        edited(record, measured), channels=(*record.channels, Channel("cmd_meas", "other", "cmd_meas"))
    )
    finding = only(list(find_measured_commands(wider)))
    assert "cmd_meas is measured of u: it follows 3 rows (60 ms) later (correlation 1.00" in finding.text
    assert "kind: commanded" in finding.remedy


def test_too_few_rows_say_nothing():
    assert control_steps(clean(1, 60)) is None
    assert list(find_models(clean(1, 60))) == []
