"""The traps of the logs of four real machines are found: without a schema, and with the shipped one."""

from pathlib import Path

import pytest

import mbrl
from mbrl.data.inspection.finding import DataFinding

pytestmark = pytest.mark.data


def inspect(folder: Path, schema: str | None = None) -> dict[str, DataFinding]:
    found = mbrl.inspect(folder, schema=schema)
    assert found.may_train
    return {finding.kind: finding for finding in found.findings}


def test_quanser_qube(shared_data: Path):
    folder = shared_data / "real" / "quanser_qube" / "raw"
    found = inspect(folder)
    assert "quantised in steps of 0.003068" in found["ticks"].text
    assert "2 ms leaves velocities in steps of 1.53 per second" in found["ticks"].text
    assert found["ticks"].severity == "warning"
    assert set(found["ticks"].channels) == {"theta", "alpha"}
    assert "derivative: alpha, window: 0.0" in found["ticks"].remedy
    assert "history: 2" in found["hidden_state"].remedy
    assert not {"jitter", "gaps", "rates", "wraps", "turns", "early_stops", "stuck", "delay"} & found.keys()
    settled = inspect(folder, "quanser_qube")
    assert settled["ticks"].severity == "note"
    assert "derivative over 0.02 s" in settled["ticks"].remedy
    assert "stuck" not in settled


def test_dfki_simple_pendulum(shared_data: Path):
    found = inspect(shared_data / "real" / "dfki_simple_pendulum" / "results")
    assert "rows are 1 to 20 ms apart by file" in found["rates"].text
    assert "rate: 50" in found["rates"].remedy
    assert (
        "filtered_data.csv and 1 more have column_0, pos, vel and lack position, velocity"
        in found["columns"].text
    )
    assert "filtered_data.csv: pos, vel, torque hold complex numbers" in found["texts"].text
    assert "3 pauses" in found["gaps"].text
    assert "23.5 ms" in found["gaps"].text
    assert "wrap: cossin" in found["turns"].remedy
    assert not {"early_stops", "unit_slip", "copies"} & found.keys()


def test_pendubot(shared_data: Path):
    folder = shared_data / "real" / "dfki_double_pendulum" / "pendubot"
    found = inspect(folder)
    assert "2.5 to 30.3 ms apart" in found["rates"].text
    assert "mcpilco" in found["rates"].text
    assert found["jitter"].severity == "warning"
    assert "the longest, 18.6 ms" in found["gaps"].text
    assert {"pos_meas1", "pos_meas2"} <= set(found["turns"].channels)
    stops = found["early_stops"]
    assert stops.severity == "warning"
    assert "6 of 30 episodes end early (1.2 to 1.77 s, usually 10 s)" in stops.text
    assert "|value| 18 to 19.8" in stops.text
    assert 'failures: {limit: "abs(vel_meas1) > 15"}' in stops.remedy
    assert "tau_meas1 is measured of tau_con1" in found["measured"].text
    settled = inspect(folder, "dfki_pendubot")
    assert settled["early_stops"].severity == "note"
    assert "failures.limit" in settled["early_stops"].remedy
    assert settled["turns"].remedy.endswith("(wrap: cossin).")
    assert settled["measured"].remedy.endswith("(kind: commanded).")


def test_g1(shared_data: Path):
    found = inspect(shared_data / "real" / "g1_lerobot" / "data", "g1_lerobot")
    assert "100 of 100 runs log no final observation" in found["no_final"].text
    assert "1 more lag" in found["hidden_state"].text
    assert found["hidden_state"].remedy.endswith("(history: 2).")
    whole = mbrl.inspect(shared_data / "real" / "g1_lerobot")
    advised = next(f for f in whole.findings if f.kind == "hidden_state")
    assert "history: 2" in advised.remedy
    assert any("no successor, 100 times" in finding.text for finding in whole.findings)
