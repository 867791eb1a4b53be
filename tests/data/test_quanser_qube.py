from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.quanser_qube import load_quanser_qube


def write_runs(path: Path, runs: int = 2, rows: int = 101) -> Path:
    """Constant speeds, a target ramp and a plant input that counts rows."""
    time = np.arange(rows)
    obs = np.stack([0.01 * time, -0.02 * time, 0.005 * time, 0 * time], axis=1)
    act = np.stack([time / 20.0, 0 * time, 0 * time], axis=1)
    np.savez(
        path,
        obs=np.tile(obs, (runs, 1)).astype(np.float32),
        act=np.tile(act, (runs, 1)).astype(np.float32),
        lengths=np.full(runs, rows),
        episodes=np.array([f"run{index}" for index in range(runs)]),
        obs_columns=np.array(["theta", "alpha", "target_theta", "target_alpha"]),
        act_columns=np.array(["plant_input", "control_output", "feedforward"]),
    )
    return path


def test_hand_made_run(tmp_path: Path):
    data = load_quanser_qube(write_runs(tmp_path / "x.npz"))
    episode = data.episodes[1]
    assert data.episode_lengths.tolist() == [9, 9]
    np.testing.assert_allclose(episode.observations[0], [0.1, -0.2, 5.0, -10.0, 0.05], rtol=1e-5)
    np.testing.assert_allclose(episode.observations[3], [0.4, -0.8, 5.0, -10.0, 0.2], rtol=1e-5)
    assert episode.actions[0, 0] == pytest.approx(np.mean(np.arange(10, 20)) / 20 / 10)
    assert episode.rewards[0] == pytest.approx(-(0.05**2) - 5 * 0.2**2 - 0.01 * 0.0725**2)
    assert (episode.terminated, episode.truncated) == (False, True)
    assert episode.timestamps is not None
    assert episode.timestamps[:2].tolist() == [0.02, 0.04]
    assert data.info.time_step == 0.02


def test_variants(tmp_path: Path):
    path = write_runs(tmp_path / "x.npz")
    data = load_quanser_qube(path, target="origin", action="hold")
    episode = data.episodes[0]
    assert data.spec.obs_dim == 4
    assert episode.actions[0, 0] == pytest.approx(0.05)
    assert episode.rewards[0] == pytest.approx(-(0.1**2) - 5 * 0.2**2 - 0.01 * 0.05**2)


def test_the_folder_of_the_archive_will_do_if_there_is_one_alone(tmp_path: Path):
    path = write_runs(tmp_path / "x.npz")
    assert load_quanser_qube(tmp_path).content_hash == load_quanser_qube(path).content_hash
    write_runs(tmp_path / "y.npz")
    with pytest.raises(DataError, match=r"a folder.*Name the .npz file"):
        load_quanser_qube(tmp_path)


def test_damaged(tmp_path: Path):
    path = write_runs(tmp_path / "x.npz")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        load_quanser_qube(path)
    np.savez(tmp_path / "y.npz", obs=np.zeros((3, 2)))
    with pytest.raises(DataError, match="missing") as caught:
        load_quanser_qube(tmp_path / "y.npz")
    assert caught.value.field == "act"


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


@pytest.mark.data
def test_real_machine(shared_data: Path):
    path = shared_data / "real" / "quanser_qube" / "quanser_qube.npz"
    data = load_quanser_qube(path, target="origin")
    assert (len(data), data.num_transitions) == (48, 48 * 998)
    linear, persistence = one_step_errors(data)
    assert linear == pytest.approx(0.113, abs=0.002)
    assert persistence == pytest.approx(0.363, abs=0.002)
    held, _ = one_step_errors(load_quanser_qube(path, target="origin", action="hold"))
    assert held == pytest.approx(0.075, abs=0.002)
