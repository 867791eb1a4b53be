"""What an import computes: known answers on small logs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.expressions.parse import parse_expression
from mbrl.data.splits import TEST_INFO, split_episodes
from tests.data.importing.machines import write_csv


def ramp(rows: int = 101, step: float = 0.1) -> dict[str, np.ndarray]:
    t = np.round(step * np.arange(rows), 9)
    return {
        "t": t,
        "x": 2.0 * t,
        "u": np.arange(rows) % 4 / 4.0,
        "angle": (1.0 * t + np.pi) % (2 * np.pi) - np.pi,
    }


def make(folder: Path, columns: dict[str, np.ndarray] | None = None, **schema: Any) -> Dataset:
    file = write_csv(folder / "run1.csv", ramp() if columns is None else columns)
    return mbrl.import_log({**BASE, **schema}, file).log


BASE: dict[str, Any] = {
    "name": "demo",
    "time": {"column": "t"},
    "observations": ["x"],
    "actions": [{"column": "u", "low": 0, "high": 1}],
}


def test_rows_as_they_stand(tmp_path: Path):
    data = make(tmp_path)
    (episode,) = data.episodes
    np.testing.assert_allclose(episode.observations[:, 0], 0.2 * np.arange(101), atol=1e-6)
    np.testing.assert_array_equal(episode.actions[:5, 0], [0, 0.25, 0.5, 0.75, 0])
    assert (len(episode), episode.truncated, data.has_rewards) == (100, True, False)
    assert data.info.time_step == pytest.approx(0.1)
    assert episode.timestamps is not None
    np.testing.assert_allclose(episode.timestamps, 0.1 * np.arange(101), atol=1e-9)


def test_resampling_averages_commands_and_interpolates_states(tmp_path: Path):
    (episode,) = make(tmp_path, rate=2.5).episodes  # steps of 0.4 s: four rows each
    np.testing.assert_allclose(episode.actions[:, 0], 0.375, atol=1e-6)
    np.testing.assert_allclose(episode.observations[:, 0], 0.8 * np.arange(26), atol=1e-6)
    held = [{"column": "u", "resample": "hold", "low": 0, "high": 1}]
    folder = tmp_path / "held"
    (episode,) = make(folder, rate=2.0, actions=held).episodes  # steps of 0.5 s: rows 0, 5, 10, ...
    np.testing.assert_allclose(episode.actions[:4, 0], [0, 0.25, 0.5, 0.75])


def test_scale_offset_name_unit_and_derived_columns(tmp_path: Path):
    observations = [
        {"column": "x", "name": "cm", "scale": 100, "offset": 1, "unit": "cm"},
        {"column": "twice"},
        {"expression": "x - 2 * t2", "name": "zero"},
    ]
    file = write_csv(tmp_path / "a.csv", ramp() | {"t2": ramp()["t"]})
    data = mbrl.import_log({**BASE, "columns": {"twice": "2 * x"}, "observations": observations}, file).log
    obs = data.episodes[0].observations
    assert data.info.obs_names == ("cm", "twice", "zero")
    np.testing.assert_allclose(obs[:, 0], 100 * 0.2 * np.arange(101) + 1, rtol=1e-6)
    np.testing.assert_allclose(obs[:, 1], 0.4 * np.arange(101), rtol=1e-6)
    np.testing.assert_allclose(obs[:, 2], 0.0, atol=1e-6)


def test_angles(tmp_path: Path):
    observations = [
        {"column": "angle", "name": "q", "wrap": "cossin"},
        {"name": "dq", "derivative": "angle", "window": 0.2},
    ]
    log = ramp(1001, 0.01)
    true = log["t"] + 0.5 * np.sin(log["t"])
    log["angle"] = (true + np.pi) % (2 * np.pi) - np.pi
    data = make(tmp_path, log, observations=observations, rate=20, reward="q")
    episode = data.episodes[0]
    time = episode.timestamps
    assert time is not None
    assert data.info.obs_names == ("q_cos", "q_sin", "dq")
    assert time[0] == pytest.approx(0.2)  # the first window
    angle, before = (at + 0.5 * np.sin(at) for at in (time, time - 0.2))
    np.testing.assert_allclose(episode.observations[:, 0], np.cos(angle), atol=1e-4)
    np.testing.assert_allclose(episode.observations[:, 1], np.sin(angle), atol=1e-4)
    np.testing.assert_allclose(
        episode.observations[:, 2], (angle - before) / 0.2, atol=1e-4
    )  # over +-pi, too
    wrapped = np.arctan2(np.sin(angle), np.cos(angle))
    np.testing.assert_allclose(episode.rewards, wrapped[:-1], atol=1e-4)
    assert data.info.reward_rule == "atan2(q_sin, q_cos)"
    unwrapped = make(tmp_path / "u", observations=[{"column": "angle", "wrap": "unwrap"}])
    np.testing.assert_allclose(unwrapped.episodes[0].observations[:, 0], 0.1 * np.arange(101), atol=1e-5)


def test_degrees_become_radians_before_they_are_wrapped(tmp_path: Path):
    degrees = ramp()
    degrees["angle"] = np.rad2deg(degrees["angle"])
    observations = [{"column": "angle", "scale": np.pi / 180, "wrap": "cossin"}]
    obs = make(tmp_path, degrees, observations=observations).episodes[0].observations
    np.testing.assert_allclose(obs[:, 0], np.cos(0.1 * np.arange(101)), atol=1e-5)


def test_history_stacks_the_latest_frame_first(tmp_path: Path):
    data = make(tmp_path, history=3, reward="x")
    episode = data.episodes[0]
    assert data.info.obs_names == ("x", "x_lag1", "x_lag2")
    np.testing.assert_allclose(episode.observations[0], [0.4, 0.2, 0.0], atol=1e-6)
    assert len(episode) == 98
    assert episode.actions[0, 0] == 0.5
    assert episode.rewards[0] == pytest.approx(0.4)


def test_rewards_read_actions_successors_and_other_columns(tmp_path: Path):
    data = make(tmp_path, reward="next_x - x + 10 * u + 100 * angle")
    angle = ramp()["angle"][:-1]
    np.testing.assert_allclose(
        data.episodes[0].rewards, 0.2 + 10 * (np.arange(100) % 4 / 4) + 100 * angle, atol=1e-3
    )
    assert data.info.reward_rule is None  # a column is no dimension of the dataset
    known = make(tmp_path / "k", reward="next_x - x + 10 * u")
    rule = parse_expression(known.info.reward_rule)
    rows = known.transitions()
    columns = {"x": rows.observation[:, 0], "next_x": rows.next_observation[:, 0], "u": rows.action[:, 0]}
    np.testing.assert_allclose(rule.evaluate(columns, len(rows)), rows.reward, atol=1e-5)


def test_a_reward_that_is_none_names_the_step(tmp_path: Path):
    with pytest.raises(DataError, match=r"the reward nan is none.*with x = ") as caught:
        make(tmp_path, reward="sqrt(3 - x)")
    assert (caught.value.field, caught.value.row) == ("reward", 16)


def test_termination_ends_an_episode_and_counts_what_follows(tmp_path: Path):
    data = make(tmp_path, termination="next_x > 4.1")
    (episode,) = data.episodes
    assert (len(episode), episode.terminated) == (21, True)
    assert episode.observations[-1, 0] == pytest.approx(4.2)
    assert data.dropped == {"steps left out after a termination": 79}
    assert data.info.termination_rule == "(next_x > 4.1)"


def test_a_flag_between_two_steps_is_not_missed(tmp_path: Path):
    log = ramp()
    log["fallen"] = (np.arange(101) == 33).astype(float)
    data = make(tmp_path, log, rate=2, termination="fallen > 0")
    assert (len(data.episodes[0]), data.episodes[0].terminated) == (7, True)  # row 33 lies in [3.0, 3.5) s


def test_gaps_split_and_are_counted(tmp_path: Path):
    log = {name: np.delete(values, range(40, 60)) for name, values in ramp().items()}
    data = make(tmp_path, log, rate=10, max_gap=0.5)
    assert data.episode_lengths.tolist() == [39, 40]
    assert data.dropped["gaps in time"] == 1
    assert data.dropped["steps lost in gaps"] == 21
    assert not any(episode.terminated for episode in data.episodes)


def test_episodes_by_column_time_and_least_length(tmp_path: Path):
    log = ramp()
    log["trial"] = np.repeat([3.0, 7.0, 5.0], [40, 58, 3])
    by_column = make(tmp_path / "c", log, episodes={"by": "column", "column": "trial"})
    assert by_column.episode_lengths.tolist() == [39, 57, 2]
    few = make(tmp_path / "f", log, episodes={"by": "column", "column": "trial", "min_steps": 10})
    assert few.episode_lengths.tolist() == [39, 57]
    assert few.dropped["episodes left out: fewer than 10 steps"] == 1
    by_time = make(tmp_path / "t", episodes={"by": "time", "seconds": 4.0})
    assert by_time.episode_lengths.tolist() == [40, 40, 20]


def test_failures_that_nothing_marks(tmp_path: Path):
    early = make(tmp_path / "e", failures={"ends_before": 20.0})
    assert early.episodes[0].terminated
    assert early.dropped["episodes taken to end by a failure"] == 1
    assert not make(tmp_path / "l", failures={"ends_before": 5.0}).episodes[0].terminated
    assert make(tmp_path / "m", failures={"limit": "x > 19.9"}).episodes[0].terminated
    assert not make(tmp_path / "n", failures={"limit": "x > 20"}).episodes[0].terminated


def test_clocks(tmp_path: Path):
    log = ramp()
    log["t"] = np.concatenate([log["t"][:50], log["t"][:51]])
    with pytest.raises(DataError, match=r"time goes from 4\.9 s to 0 s") as caught:
        make(tmp_path / "a", log)
    assert (caught.value.row, caught.value.field) == (52, "t")  # line 1 is the header
    data = make(tmp_path / "b", log, time={"column": "t", "restarts": "new_episode"})
    assert data.episode_lengths.tolist() == [49, 50]
    log["t"] = np.minimum(ramp()["t"], 5.0)
    with pytest.raises(DataError, match="time goes from 5 s to 5 s"):
        make(tmp_path / "c", log)
    data = make(tmp_path / "d", log, time={"column": "t", "repeated": "drop"})
    assert data.dropped["rows left out: repeated time stamp"] == 50
    stamps = ramp() | {"t": 1_700_000_000_000_000_000 + 100_000_000.0 * np.arange(101)}
    data = make(tmp_path / "e", stamps, time={"column": "t", "unit": "ns", "epoch": True})
    np.testing.assert_allclose(data.episodes[0].timestamps, 0.1 * np.arange(101), atol=1e-9)
    data = make(tmp_path / "f", time={"step": 0.5})
    assert data.info.time_step == 0.5


def test_dates(tmp_path: Path):
    lines = ["t,x,u", *(f"2024-05-01T12:00:{k:02d}.500,{k},{k % 2}" for k in range(60))]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    data = mbrl.import_log({**BASE, "time": {"column": "t", "unit": "datetime"}}, tmp_path / "a.csv").log
    assert data.info.time_step == 1.0
    with pytest.raises(DataError, match=r"stamps are dates, and time\.unit is s"):
        mbrl.import_log(BASE, tmp_path / "a.csv")


def test_missing_cells(tmp_path: Path):
    rows = [f"{k / 10},{k if k % 2 else ''},{k % 3}" for k in range(101)]
    (tmp_path / "a.csv").write_text("\n".join(["t,x,u", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match="the value nan is none") as caught:
        mbrl.import_log({**BASE, "actions": ["u"]}, tmp_path / "a.csv")
    assert (caught.value.field, caught.value.row) == ("x", 2)
    schema = {**BASE, "actions": ["u"], "missing": "skip", "rate": 10}
    data = mbrl.import_log(schema, tmp_path / "a.csv").log
    np.testing.assert_allclose(data.episodes[0].observations[:, 0], np.arange(1, 100), atol=1e-4)
    assert data.dropped["cells without a value"] == 51


def test_files_at_several_rates_are_joined_by_run(tmp_path: Path):
    for run in (1, 2):
        slow, fast = np.arange(0, 10.01, 0.1), np.arange(0, 10.001, 0.01)
        write_csv(tmp_path / f"r{run}_pos.csv", {"time": fast, "value": run * fast})
        write_csv(tmp_path / f"r{run}_cmd.csv", {"time": slow, "value": np.floor(slow + 1e-9) / 10})
    schema = {
        "name": "demo",
        "time": {"column": "time"},
        "rate": 10,
        "sources": [
            {"files": "*_pos.csv", "columns": {"x": "value"}},
            {"files": "*_cmd.csv", "columns": {"u": "value"}},
        ],
        "observations": ["x"],
        "actions": ["u"],
    }
    data = mbrl.import_log(schema, tmp_path).log
    assert data.episode_lengths.tolist() == [100, 100]
    np.testing.assert_allclose(data.episodes[1].observations[:, 0], 0.2 * np.arange(101), atol=1e-5)
    np.testing.assert_allclose(data.episodes[1].actions[:, 0], np.arange(100) // 10 / 10, atol=1e-5)
    (tmp_path / "r2_cmd.csv").unlink()
    with pytest.raises(DataError, match=r"the run lacks its file \*_cmd\.csv"):
        mbrl.import_log(schema, tmp_path)


def test_tests_are_tagged(tmp_path: Path):
    for run in range(4):
        write_csv(tmp_path / f"run{run}.csv", ramp())
    by_file = mbrl.import_log({**BASE, "tags": {"test": ["run2.csv"]}}, tmp_path).log
    assert [bool(e.infos[TEST_INFO][0]) for e in by_file.episodes] == [False, False, True, False]
    by_count = mbrl.import_log({**BASE, "tags": {"every": 2}}, tmp_path).log
    assert [bool(e.infos[TEST_INFO][0]) for e in by_count.episodes] == [False, True, False, True]
    parts = split_episodes(by_file, generator=RngStreams(0).at("split"))
    assert parts.holdout.episodes == (by_file.episodes[2],)
    assert len(parts.train) == 3


def test_the_schema_travels_is_hashed_and_shown(tmp_path: Path):
    file = write_csv(tmp_path / "run1.csv", ramp())
    first = mbrl.import_log(BASE, file, out=tmp_path / "a")
    again = mbrl.import_log(BASE, file, out=tmp_path / "b", to="npz")
    other = mbrl.import_log({**BASE, "source": "elsewhere"}, file)
    assert first.log.content_hash == again.log.content_hash == mbrl.load(tmp_path / "a").content_hash
    assert other.log.content_hash != first.log.content_hash
    assert '"wrap":"none"' in mbrl.load(tmp_path / "b").info.schema
    shown = str(mbrl.inspect(tmp_path / "a"))
    assert "How it was made" in shown
    assert "column: x" in shown


def test_actions_beyond_their_bounds(tmp_path: Path):
    with pytest.raises(DataError, match="lies beyond"):
        make(tmp_path / "a", actions=[{"column": "u", "low": 0, "high": 0.5}])
    clipped = make(tmp_path / "b", actions=[{"column": "u", "low": 0, "high": 0.5, "clip": True}])
    assert clipped.episodes[0].actions.max() == 0.5


def test_parquet_with_lists(tmp_path: Path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    state = pa.array([[k, 2 * k] for k in range(50)], type=pa.list_(pa.float32(), 2))
    action = pa.array([[k % 3] for k in range(50)], type=pa.list_(pa.float64()))
    columns = {"timestamp": pa.array(np.arange(50) / 10), "state": state, "action": action}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    schema = {
        "name": "demo",
        "time": {"column": "timestamp"},
        "observations": [{"column": "state[*]", "name": "q[*]"}],
        "actions": ["action[*]"],
        "reward": "-`q[1]`",
    }
    data = mbrl.import_log(schema, tmp_path / "e.parquet").log
    assert data.info.obs_names == ("q[0]", "q[1]")
    np.testing.assert_array_equal(data.episodes[0].rewards, -2.0 * np.arange(49))


def test_clocks_that_count_from_one_day_are_joined_on_it(tmp_path: Path):
    day = 1_700_000_000_000
    slow, fast = np.arange(0, 8001, 100.0), np.arange(0, 10_001, 10.0)
    write_csv(tmp_path / "pos.csv", {"time": day + fast, "x": fast / 1000})
    late = slow + 1500  # its first row comes 1.5 s after that of the other file, and it counts in seconds
    write_csv(tmp_path / "cmd.csv", {"time": (day + late) / 1000, "u": late / 10_000})
    schema = {
        "name": "demo",
        "time": {"column": "time", "unit": "ms", "epoch": True},
        "rate": 10,
        "sources": [
            {"files": "pos.csv"},
            {"files": "cmd.csv", "time": {"column": "time", "unit": "s", "epoch": True}},
        ],
        "observations": ["x"],
        "actions": [{"column": "u", "resample": "hold"}],
    }
    (episode,) = mbrl.import_log(schema, tmp_path).log.episodes
    np.testing.assert_allclose(episode.observations[:3, 0], [1.5, 1.6, 1.7], atol=1e-5)
    np.testing.assert_allclose(episode.actions[:3, 0], [0.15, 0.16, 0.17], atol=1e-5)
