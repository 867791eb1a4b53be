import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mbrl.core.errors import DataError
from mbrl.data.formats.d4rl import D4rlFormat
from mbrl.data.options import LoadOptions
from tests.data.logs import make_dataset, make_episode

FORMAT = D4rlFormat()
NEVER = LoadOptions()


def write_flat(path: Path, **arrays: object) -> Path:
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key.replace("__", "/")] = np.asarray(values)
    return path


def flat_log(*ends: str) -> dict[str, np.ndarray]:
    """Episodes of 3 rows ending as told (terminal, timeout, none); observation = 10 * episode + step."""
    count = 3 * len(ends)
    number = np.array([10.0 * (i // 3) + i % 3 for i in range(count)])
    last = np.arange(count) % 3 == 2
    ending = np.repeat(ends, 3)
    return {
        "observations": number[:, None],
        "actions": np.full((count, 1), 0.5),
        "rewards": last.astype(np.float64),
        "terminals": last & (ending == "terminal"),
        "timeouts": last & (ending == "timeout"),
        "next_observations": number[:, None] + 1,
    }


def without(arrays: dict[str, np.ndarray], *keys: str) -> dict[str, np.ndarray]:
    return {key: values for key, values in arrays.items() if key not in keys}


def test_no_successor_comes_from_another_episode(tmp_path: Path):
    """Shifting the observations would make the next episode's first state the successor of a terminal row."""
    arrays = without(flat_log("terminal", "timeout", "terminal"), "next_observations")
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    rows = data.transitions()
    known = rows.successors_known()
    assert np.array_equal(known.next_observation, known.observation + 1)
    assert rows.is_successor_known.tolist() == [True, True, False, True, True, True, True, False]
    assert data.dropped == {"terminal successors unknown": 2, "rows dropped: no successor": 1}


def test_rewarded_terminal_rows_survive(tmp_path: Path):
    """Goal rewards sit on terminal rows: their count and sum must survive."""
    arrays = without(flat_log("terminal", "terminal", "timeout"), "next_observations")
    rewards = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays)).transitions().reward
    assert rewards.sum() == arrays["rewards"][arrays["terminals"]].sum() == 2
    assert np.count_nonzero(rewards) == 2


def test_all_rows_survive_with_next_observations(tmp_path: Path):
    arrays = flat_log("terminal", "timeout", "none")
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    rows = data.transitions()
    assert np.array_equal(rows.observation, arrays["observations"])
    assert np.array_equal(rows.next_observation, arrays["next_observations"])
    assert np.array_equal(rows.terminated, arrays["terminals"])
    assert [episode.truncated for episode in data.episodes] == [False, True, True]
    assert data.dropped == {"ends of log marked as truncated": 1}


def test_shifted_next_observations_are_not_believed(tmp_path: Path):
    """Some files hold `next_observations` made by shifting: wrong at every flagged row."""
    arrays = flat_log("terminal", "timeout", "terminal")
    arrays["next_observations"] = np.roll(arrays["observations"], -1, axis=0)
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    known = data.transitions().successors_known()
    assert np.array_equal(known.next_observation, known.observation + 1)
    assert data.num_transitions == 8
    assert data.dropped == {
        "successors taken from the next episode": 3,
        "terminal successors unknown": 2,
        "rows dropped: no successor": 1,
    }


def test_missing_timeouts_are_found_by_discontinuity(tmp_path: Path):
    arrays = without(flat_log("timeout", "terminal", "timeout"), "timeouts")
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    assert data.episode_lengths.tolist() == [3, 3, 3]
    assert [episode.terminated for episode in data.episodes] == [False, True, False]


def test_missing_timeouts_are_counted_from_the_limit(tmp_path: Path):
    arrays = without(flat_log("timeout", "timeout", "terminal"), "timeouts", "next_observations")
    path = write_flat(tmp_path / "x.hdf5", **arrays)
    with pytest.raises(DataError, match="max_episode_steps") as caught:
        FORMAT.read(path)
    assert caught.value.field == "timeouts"
    data = FORMAT.read(path, LoadOptions(max_episode_steps=3))
    assert data.episode_lengths.tolist() == [2, 2, 3]
    assert data.transitions().observation[:, 0].tolist() == [0, 1, 10, 11, 20, 21, 22]
    assert data.info.max_episode_steps == 3


def test_unflagged_end_of_file_drops_its_last_row(tmp_path: Path):
    arrays = without(flat_log("terminal", "none"), "next_observations")
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    assert data.episode_lengths.tolist() == [3, 2]
    assert data.episodes[1].truncated


def test_column_shapes_and_wide_types(tmp_path: Path):
    arrays = flat_log("terminal", "timeout")
    expected = FORMAT.read(write_flat(tmp_path / "a.hdf5", **arrays))
    for key in ("rewards", "terminals", "timeouts"):
        arrays[key] = arrays[key].astype(np.float64)[:, None]
    data = FORMAT.read(write_flat(tmp_path / "b.hdf5", **arrays, infos__action_log_probs=np.zeros((6, 1))))
    assert data.transitions().reward.shape == (6,)
    assert data.transitions().reward.dtype == np.float32
    assert np.array_equal(data.transitions().terminated, expected.transitions().terminated)
    assert data.episodes[1].behaviour_log_prob.tolist() == [0, 0, 0]


def test_overlapping_flags(tmp_path: Path):
    arrays = flat_log("terminal", "timeout")
    arrays["timeouts"] |= arrays["terminals"]
    path = write_flat(tmp_path / "x.hdf5", **arrays)
    with pytest.raises(DataError, match="both") as caught:
        FORMAT.read(path)
    assert caught.value.episode == "0 (rows 0 to 2)"
    data = FORMAT.read(path, LoadOptions(overlap="terminated"))
    assert [episode.terminated for episode in data.episodes] == [True, False]


def test_metadata_and_infos(tmp_path: Path):
    arrays = flat_log("terminal", "timeout")
    path = write_flat(tmp_path / "x.hdf5", **arrays, infos__qpos=np.arange(12.0).reshape(6, 2))
    with h5py.File(path, "a") as file:
        file["metadata/algorithm"] = np.bytes_("SAC")
        file["metadata/iteration"] = 3000
    data = FORMAT.read(path)
    assert data.info.provenance["algorithm"] == "SAC"
    assert data.episodes[1].infos["qpos"].tolist() == [[6, 7], [8, 9], [10, 11]]
    assert FORMAT.read(path, LoadOptions(infos="none")).episodes[1].infos == {}


def test_bounds(tmp_path: Path):
    arrays = flat_log("timeout")
    assert FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays)).spec.act_high == (1.0,)
    arrays["actions"] = np.array([[-3.0], [2.0], [0.0]])
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    assert (data.spec.act_low, data.spec.act_high) == ((-3.0,), (2.0,))
    assert "action_bounds" in data.info.provenance


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_missing_key(tmp_path: Path, key: str):
    path = write_flat(tmp_path / "x.hdf5", **without(flat_log("timeout"), key))
    with pytest.raises(DataError, match="the key is missing") as caught:
        FORMAT.read(path)
    assert (caught.value.file, caught.value.field) == (path, key)


@pytest.mark.parametrize("key", ["actions", "terminals", "timeouts", "next_observations"])
def test_unequal_rows(tmp_path: Path, key: str):
    arrays = flat_log("timeout", "terminal")
    arrays[key] = arrays[key][:4]
    with pytest.raises(DataError, match="where the rewards have 6 rows") as caught:
        FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    assert (caught.value.field, caught.value.row) == (key, 4)


def test_bad_values_name_their_row(tmp_path: Path):
    arrays = flat_log("timeout", "terminal")
    arrays["observations"][4] = np.inf
    arrays["next_observations"][3] = np.inf
    with pytest.raises(DataError, match="inf") as caught:
        FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    assert caught.value.field == "observations"
    assert "rows 3 to" in str(caught.value.episode) or "rows 4 to" in str(caught.value.episode)


def test_empty_and_shuffled_logs(tmp_path: Path):
    empty = {key: values[:0] for key, values in flat_log("timeout").items()}
    with pytest.raises(DataError, match="no rows"):
        FORMAT.read(write_flat(tmp_path / "x.hdf5", **empty))
    arrays = flat_log(*["none"] * 10)
    order = np.random.default_rng(0).permutation(30)
    shuffled = {key: values[order] for key, values in arrays.items()}
    with pytest.raises(DataError, match="Sort the rows"):
        FORMAT.read(write_flat(tmp_path / "y.hdf5", **shuffled))


def test_log_of_one_row(tmp_path: Path):
    arrays = {key: values[:1] for key, values in flat_log("none").items()}
    data = FORMAT.read(write_flat(tmp_path / "x.hdf5", **arrays))
    assert data.transitions().next_observation.tolist() == [[1.0]]


def test_truncated_file(tmp_path: Path):
    path = FORMAT.write(make_dataset((50, 60)), tmp_path / "x.hdf5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="truncated or damaged") as caught:
        FORMAT.read(path)
    assert caught.value.file == path


def test_round_trip(tmp_path: Path):
    data = make_dataset((4, 3, 5), log_prob=True)
    back = FORMAT.read(FORMAT.write(data, tmp_path / "x.hdf5"))
    assert back.content_hash == data.content_hash
    assert back.info == data.info
    assert back.dropped == {}
    with pytest.raises(FileExistsError):
        FORMAT.write(data, tmp_path / "x.hdf5")


def test_round_trip_of_unknown_successors(tmp_path: Path):
    last = make_episode(1, 3, terminated=True, is_final_observation_known=False)
    data = dataclasses.replace(make_dataset(), episodes=(make_episode(0, 4), last))
    back = FORMAT.read(FORMAT.write(data, tmp_path / "x.hdf5"))
    assert back.content_hash == data.content_hash


def test_partial_log_probs_are_refused(tmp_path: Path):
    data = dataclasses.replace(make_dataset(), episodes=(make_episode(0, log_prob=True), make_episode(1)))
    with pytest.raises(DataError, match="1 of 2 episodes lack"):
        FORMAT.write(data, tmp_path / "x.hdf5")
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(["terminal", "timeout"])), min_size=1, max_size=8),
    st.booleans(),
)
def test_any_flat_log_keeps_its_episodes_apart(
    tmp_path: Path, plan: list[tuple[int, str]], has_successors: bool
):
    episode = np.repeat(np.arange(len(plan)), [steps for steps, _ in plan])
    step = np.concatenate([np.arange(steps) for steps, _ in plan])
    last = np.concatenate([np.arange(steps) == steps - 1 for steps, _ in plan])
    kind = np.array([how for _, how in plan])[episode]
    number = (100.0 * episode + step)[:, None]
    arrays = {
        "observations": number,
        "actions": np.zeros_like(number),
        "rewards": step.astype(np.float64),
        "terminals": last & (kind == "terminal"),
        "timeouts": last & (kind == "timeout"),
    }
    if has_successors:
        arrays["next_observations"] = number + 1
    lost = 0 if has_successors else int(arrays["timeouts"].sum())
    path = write_flat(tmp_path / "x.hdf5", **arrays)
    if lost == len(number):
        with pytest.raises(DataError, match="no usable episode"):
            FORMAT.read(path)
        return
    rows = FORMAT.read(path).transitions()
    assert len(rows) == len(number) - lost
    known = rows.successors_known()
    assert np.array_equal(known.next_observation, known.observation + 1)
    assert int(rows.terminated.sum()) == int(arrays["terminals"].sum())
