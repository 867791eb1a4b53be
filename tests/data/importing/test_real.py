"""The logs of four real machines, as they lie in their repositories, by the shipped schemas and no Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mbrl
from mbrl.cli.app import app
from mbrl.data.dataset import Dataset
from tests.data.importing.qube import import_qube

pytestmark = pytest.mark.data

FITS = ("--set", "dynamics.max_updates=30", "--set", "dynamics.hidden=[16]", "--set", "dynamics.members=2")
QUICK = ("--set", "dynamics.elites=2", "--set", "dynamics.assessment.segments=20")

MACHINES = {
    "quanser_qube": ("quanser_qube/raw", 4, 3992, 5, 1, 0),
    "dfki_simple_pendulum": ("dfki_simple_pendulum/results", 9, 9167, 3, 1, 0),
    "dfki_pendubot": ("dfki_double_pendulum/pendubot", 30, 12238, 6, 1, 6),
    "g1_lerobot": ("g1_lerobot/data", 100, 35765, 52, 26, 0),
}


def run(*words: object) -> dict[str, object]:
    result = CliRunner().invoke(app, [str(word) for word in words] + ["--json"])
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", MACHINES)
def test_import_and_fit_without_python(name: str, shared_data: Path, tmp_path: Path):
    folder, episodes, transitions, obs_dim, act_dim, terminated = MACHINES[name]
    made = run("import", name, shared_data / "real" / folder, "--out", tmp_path / name)
    assert (made["episodes"], made["transitions"], made["terminated"]) == (episodes, transitions, terminated)
    data = mbrl.load(tmp_path / name)
    assert (data.spec.obs_dim, data.spec.act_dim) == (obs_dim, act_dim)
    assert data.has_rewards == (name != "g1_lerobot")
    assert data.info.schema is not None
    report = run("fit", tmp_path / name, "--runs", tmp_path / "runs", *FITS, *QUICK)
    assert report["report"]["one_step"]["nrmse_persistence"] > 0  # type: ignore[index]


def test_the_rewards_follow_their_rules(shared_data: Path):
    data = mbrl.import_log(
        "dfki_simple_pendulum", shared_data / "real" / "dfki_simple_pendulum" / "results"
    ).log
    rows = data.transitions()
    angle = np.arctan2(rows.observation[:, 1], rows.observation[:, 0]) - np.pi
    wrapped = np.arctan2(np.sin(angle), np.cos(angle))
    speed, torque = rows.observation[:, 2], rows.action[:, 0]
    expected = -(wrapped**2 + 0.1 * speed**2 + 0.001 * torque**2)
    np.testing.assert_allclose(rows.reward, expected, rtol=1e-3, atol=1e-3)


def test_runs_that_the_pendubot_stopped_are_failures(shared_data: Path):
    data = mbrl.import_log("dfki_pendubot", shared_data / "real" / "dfki_double_pendulum" / "pendubot").log
    stopped = [episode for episode in data.episodes if episode.terminated]
    assert all(1.1 < len(episode) * 0.02 < 1.8 for episode in stopped)
    assert all(np.abs(episode.observations[-1, 4:]).max() > 15 for episode in stopped)


def one_step_errors(data: Dataset) -> tuple[float, float]:
    """NRMSE over the four dimensions of the machine, by least squares and by persistence."""
    held, train = data.select(range(8)).transitions(), data.select(range(8, 48)).transitions()
    design = [
        np.concatenate([rows.observation, rows.action, np.ones((len(rows), 1))], axis=1).astype(np.float64)
        for rows in (train, held)
    ]
    weights = np.linalg.lstsq(design[0], train.next_observation - train.observation, rcond=None)[0]
    delta = held.next_observation - held.observation
    scale = train.observation.std(axis=0)
    errors = [np.sqrt(np.square(gap).mean(axis=0)) / scale for gap in (delta - design[1] @ weights, delta)]
    return float(errors[0][:4].mean()), float(errors[1][:4].mean())


def test_the_qube_pendulum_is_read_as_it_always_was(shared_data: Path, tmp_path: Path):
    origin = [(("observations",), ["theta", "alpha", *_velocities()]), "reward=-theta**2 - 5*alpha**2"]
    data = import_qube(shared_data, tmp_path, origin)
    assert (len(data), data.num_transitions) == (48, 48 * 998)
    linear, persistence = one_step_errors(data)
    assert linear == pytest.approx(0.113, abs=0.002)
    assert persistence == pytest.approx(0.363, abs=0.002)
    hold = [{"column": "plant_input", "scale": 0.1, "low": -1, "high": 1, "resample": "hold"}]
    held, _ = one_step_errors(import_qube(shared_data, tmp_path, [*origin, (("actions",), hold)]))
    assert held == pytest.approx(0.075, abs=0.002)


def _velocities() -> list[dict[str, object]]:
    return [{"name": f"{name}_velocity", "derivative": name, "window": 0.02} for name in ("theta", "alpha")]


def test_the_qube_pendulum_by_hand(tmp_path: Path):
    """Constant speeds, a target ramp and a plant input that counts rows."""
    rows = np.arange(101)
    columns = {
        "t": 0.002 * rows,
        "target_theta": 0.005 * rows,
        "theta": 0.01 * rows,
        "alpha": -0.02 * rows,
        "plant_input": rows / 20.0,
    }
    lines = [
        ",".join(columns),
        *(",".join(map(repr, row)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)),
    ]
    (tmp_path / "run.csv").write_text("\n".join(lines), encoding="utf-8")
    (episode,) = mbrl.import_log("quanser_qube", tmp_path / "run.csv").log.episodes
    assert len(episode) == 9
    np.testing.assert_allclose(episode.observations[0], [0.1, -0.2, 5.0, -10.0, 0.05], rtol=1e-5)
    np.testing.assert_allclose(episode.observations[3], [0.4, -0.8, 5.0, -10.0, 0.2], rtol=1e-5)
    assert episode.actions[0, 0] == pytest.approx(np.mean(np.arange(10, 20)) / 20 / 10)
    assert episode.rewards[0] == pytest.approx(-(0.05**2) - 5 * 0.2**2 - 0.01 * 0.0725**2)
    assert (episode.terminated, episode.truncated) == (False, True)
    assert episode.timestamps is not None
    assert episode.timestamps[:2] == pytest.approx([0.02, 0.04])
