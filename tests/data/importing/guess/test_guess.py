"""Unknown files to a first schema to a dataset."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mbrl
from mbrl.api.importing import read_schema
from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.data.importing.guess.columns import find_clock, find_tick, find_turn, guess_time, look_at
from mbrl.data.importing.guess.dialect import guess_dialect
from mbrl.data.importing.guess.pairs import find_commands, find_response, find_velocities
from tests.data.importing.machines import epochal, german, scattered, swing, write_csv


def go(folder: Path, tmp_path: Path) -> tuple[str, Dataset]:
    """The two commands."""
    schema = tmp_path / "schema.yaml"
    text = mbrl.guess_schema(folder, out=schema).text
    assert schema.read_text(encoding="utf-8") == text
    assert read_schema(schema).name
    return text, mbrl.import_log(schema, folder, out=tmp_path / "dataset").log


def test_semicolons_and_decimal_commas(tmp_path: Path):
    text, data = go(german(tmp_path / "raw"), tmp_path)
    assert '"delimiter": ";", "decimal": ","' in text
    assert "the velocity of Winkel" in text
    assert (len(data), data.info.obs_names, data.info.act_names) == (
        3,
        ("Winkel", "Geschwindigkeit"),
        ("Spannung",),
    )
    assert data.info.time_step == 0.02
    np.testing.assert_allclose(
        data.episodes[0].observations[:, 0], swing(1500, 0.01, 0)["angle"][::2], atol=1e-5
    )


def test_milliseconds_since_1970_with_a_reset(tmp_path: Path):
    text, data = go(epochal(tmp_path / "raw"), tmp_path)
    assert '"unit": "ms", "epoch": true, "restarts": "new_episode"' in text
    assert "it goes back in 1 rows" in text
    assert "wrap: cossin" in text
    assert "derivative" in text
    assert data.info.obs_names == ("angle_cos", "angle_sin", "angle_velocity")
    assert len(data) == 2
    true = swing(800, 0.02, 1)["angle"]
    np.testing.assert_allclose(data.episodes[1].observations[:, 0], np.cos(true[1:]), atol=1e-4)
    rate = np.diff(true) / 0.02
    np.testing.assert_allclose(data.episodes[1].observations[:, 2], rate, atol=1e-3)


def test_one_file_for_each_signal(tmp_path: Path):
    text, data = go(scattered(tmp_path / "raw"), tmp_path)
    assert "joined by time" in text
    assert 'columns: {"cmd": "value"}' in text
    assert (data.info.obs_names, data.info.act_names) == (("pos", "speed"), ("cmd",))
    log = swing(3000, 0.005, 2)
    np.testing.assert_allclose(data.episodes[0].observations[:, 0], log["angle"][::4][:750], atol=1e-4)
    np.testing.assert_allclose(data.episodes[0].actions[:, 0], log["command"][::4][:749], atol=1e-4)


def test_everything_that_is_seen_is_said(tmp_path: Path):
    log = swing(1000, 0.02, 0)
    rng = np.random.default_rng(0)
    tick = 2 * math.pi / 64
    columns = {
        "frame": np.arange(1000.0),
        "t": log["t"],
        "joint": np.round(log["angle"] / tick) * tick,
        "cmd": log["command"],
        "current": np.concatenate([np.zeros(3), log["command"][:-3]]) + 0.01 * rng.standard_normal(1000),
        "gain": np.full(1000, 2.5),
        "reward": -np.square(log["angle"]),
        "done": (np.arange(1000) % 250 == 249).astype(float),
        "episode": np.arange(1000) // 250 * 1.0,
    }
    text = mbrl.guess_schema(write_csv(tmp_path / "log.csv", columns)).text
    assert '# - "gain"  # constant: 2.5' in text
    assert f"changes in steps of {tick:.4g}" in text
    assert "follows cmd by 3 rows: measured, not commanded" in text
    assert '# - "frame"  # index' in text
    assert 'reward: "reward"  # by its name' in text
    assert '# termination: "done > 0"' in text
    assert 'episodes: {by: column, column: "episode"}' in text
    assert '"joint_velocity", derivative: "joint"' in text
    assert "rate: null" in text


def test_nothing_is_overwritten(tmp_path: Path):
    (tmp_path / "s.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already"):
        mbrl.guess_schema(german(tmp_path / "raw"), out=tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("text", "delimiter", "decimal", "skip", "header"),
    [
        ("t,x\n0.1,0.2\n0.2,0.3\n", ",", ".", 0, True),
        ("t;x\n0,1;0,2\n0,2;0,3\n", ";", ",", 0, True),
        ("t;x\n0.1;0.2\n0.2;0.3\n", ";", ".", 0, True),
        ("t\tx\n0,1\t0,2\n0,2\t0,3\n", "\t", ",", 0, True),
        ("# log of monday\nt,x\n0.1,0.2\n0.2,0.3\n", ",", ".", 1, True),
        ("0.1,0.2\n0.2,0.3\n", ",", ".", 0, False),
    ],
)
def test_dialects(text: str, delimiter: str, decimal: str, skip: int, header: bool, tmp_path: Path):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    found = guess_dialect(tmp_path / "a.csv")
    assert (found.delimiter, found.decimal, found.skip_rows, found.header) == (
        delimiter,
        decimal,
        skip,
        header,
    )


@pytest.mark.parametrize(
    ("stamps", "name", "unit", "epoch"),
    [
        (0.01 * np.arange(50), "t", "s", False),
        (10.0 * np.arange(50), "t", "ms", False),
        (10.0 * np.arange(50), "t_us", "us", False),
        (1.7e9 + 0.01 * np.arange(50), "t", "s", True),
        (1_700_000_000_000 + 10 * np.arange(50), "t", "ms", True),
        (1_700_000_000_000_000 + 10_000 * np.arange(50), "t", "us", True),
        (1_700_000_000_000_000_000 + 10_000_000 * np.arange(50), "t", "ns", True),
    ],
)
def test_units_of_clocks(stamps: np.ndarray, name: str, unit: str, epoch: bool):
    config, _ = guess_time(name, [stamps])
    assert (config.unit, config.epoch, config.restarts, config.repeated) == (unit, epoch, "error", "error")


def test_clocks_are_told_from_counters_and_states():
    rows = np.arange(100.0)
    columns = {"frame": rows, "x": np.sin(rows), "time": 0.01 * rows}
    assert find_clock(columns) == "time"
    assert find_clock({"x": np.sin(rows)}) is None


def test_wraps_and_ticks():
    angle = np.linspace(-10, 10, 400)
    wrapped = (angle + np.pi) % (2 * np.pi) - np.pi
    assert find_turn([wrapped]) == 2 * math.pi
    assert find_turn([np.rad2deg(wrapped)]) == 360
    assert find_turn([angle]) is None
    ticks = np.round(np.sin(angle) * 20) * 0.07
    assert find_tick(ticks) == pytest.approx(0.07)
    assert find_tick(np.sin(angle)) is None
    assert look_at("g", np.full(5, 3.0)).kind == "constant"


def test_pairs():
    log = swing(2000, 0.01, 3)
    columns = {name: log[name] for name in ("angle", "velocity", "command")}
    assert find_velocities(columns, log["t"], {}) == {"velocity": "angle"}
    late = np.concatenate([np.zeros(7), log["command"][:-7]])
    assert find_response(log["command"], late)[0] == 7
    assert find_response(late, log["command"])[0] == -7
    assert find_commands({"c": log["command"], "m": late}, ["c", "m"]) == {"m": ("c", 7)}


@pytest.mark.parametrize("write", [german, epochal, scattered])
def test_a_guess_is_the_same_again(write: Callable[[Path], Path], tmp_path: Path):
    folder = write(tmp_path / "raw")
    assert mbrl.guess_schema(folder).text == mbrl.guess_schema(folder).text
