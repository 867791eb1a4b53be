import dataclasses
import json
import os
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.formats.minari import MAIN_FILE, METADATA_FILE, MinariFormat
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from tests.data.logs import make_dataset, make_episode

FORMAT = MinariFormat()


def write(tmp_path: Path, **options: bool) -> tuple[Dataset, Path]:
    data = make_dataset((4, 3, 5), **options)
    return data, FORMAT.write(data, tmp_path / "toy")


def edit_metadata(path: Path, **changes: object) -> None:
    file = path / "data" / METADATA_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_round_trip_keeps_everything(tmp_path: Path):
    data, path = write(tmp_path, log_prob=True, times=True, infos=True)
    back = FORMAT.read(path)
    assert back.content_hash == data.content_hash
    assert dataclasses.replace(back.info, provenance={}) == data.info
    assert back.spec == data.spec
    assert back.dropped == {}
    first, again = data.episodes[1], back.episodes[1]
    assert again.timestamps is not None
    assert again.timestamps.tolist() == first.timestamps.tolist()
    assert {name: values.tolist() for name, values in again.infos.items()} == {
        name: values.tolist() for name, values in first.infos.items()
    }


def test_unknown_final_observation_survives(tmp_path: Path):
    last = make_episode(1, 3, terminated=True, is_final_observation_known=False)
    unknown = dataclasses.replace(make_dataset(), episodes=(make_episode(0, 4), last))
    back = FORMAT.read(FORMAT.write(unknown, tmp_path / "toy"))
    assert [e.is_final_observation_known for e in back.episodes] == [True, False]
    assert back.content_hash == unknown.content_hash


def test_many_episodes_keep_their_order(tmp_path: Path):
    """Names sort as text (episode_10 before episode_2); episodes must sort as numbers."""
    data = make_dataset(tuple(range(1, 13)))
    back = FORMAT.read(FORMAT.write(data, tmp_path / "toy"))
    assert back.episode_lengths.tolist() == list(range(1, 13))


@pytest.mark.parametrize("inner", [".", "data", f"data/{MAIN_FILE}"])
def test_opens_by_any_of_its_paths(tmp_path: Path, inner: str):
    data, path = write(tmp_path)
    assert open_dataset(path / inner).content_hash == data.content_hash


def test_refuses_to_overwrite(tmp_path: Path):
    data, path = write(tmp_path)
    with pytest.raises(FileExistsError):
        FORMAT.write(data, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy"]


def test_reads_description_from_metadata(tmp_path: Path):
    _, path = write(tmp_path)
    spec = json.dumps({"id": "Hopper-v5", "max_episode_steps": 1000})
    edit_metadata(path, env_spec=spec, ref_min_score=-20.0, ref_max_score=3234.3, algorithm_name="medium")
    info = FORMAT.read(path).info
    assert (info.env_id, info.max_episode_steps) == ("Hopper-v5", 1000)
    assert (info.ref_min_score, info.ref_max_score) == (-20.0, 3234.3)
    assert info.provenance["algorithm_name"] == "medium"
    assert info.task is None  # never guessed from a name
    edit_metadata(path, task="hopper")
    assert FORMAT.read(path).info.task == "hopper"


def test_simulator_description_survives(tmp_path: Path):
    """What other programs wrote of the simulator is passed on as it stands."""
    data, path = write(tmp_path)
    spec = json.dumps({"id": "Hopper-v5", "max_episode_steps": 1000, "kwargs": {"a": 1}})
    edit_metadata(path, env_spec=spec)
    again = FORMAT.write(FORMAT.read(path), tmp_path / "again")
    assert json.loads((again / "data" / METADATA_FILE).read_text())["env_spec"] == spec
    assert FORMAT.read(again).content_hash == data.content_hash


def test_actions_that_are_none_of_the_choices_are_refused(tmp_path: Path):
    _, path = write(tmp_path)
    edit_metadata(path, action_space=json.dumps({"type": "Discrete", "n": 3, "start": 0}))
    with pytest.raises(DataError, match=r"is none of the 3 choices \(0, 1, 2;") as caught:
        FORMAT.read(path)
    assert caught.value.field == "actions"


@pytest.mark.parametrize(
    "space",
    [
        {"type": "Discrete", "n": 5000},
        {"type": "Discrete"},
        {"type": "Discrete", "n": -1},
        {"type": "MultiBinary", "n": 10**15},
        {"type": "MultiDiscrete", "nvec": [10**9, 10**9, "x"]},
    ],
)
def test_spaces_of_too_many_or_no_choices_are_refused(tmp_path: Path, space: dict[str, object]):
    _, path = write(tmp_path)
    edit_metadata(path, action_space=json.dumps(space))
    with pytest.raises(DataError, match="a space of 1 to 1,024 choices") as caught:
        FORMAT.read(path)
    assert caught.value.field == "action_space"


def test_unbounded_actions_take_the_range_of_the_data(tmp_path: Path):
    data, path = write(tmp_path)
    space = {"type": "Box", "dtype": "float32", "shape": [1], "low": [-np.inf], "high": [np.inf]}
    edit_metadata(path, action_space=json.dumps(space))
    back = FORMAT.read(path)
    actions = data.transitions().action
    assert back.spec.act_low == (float(actions.min()),)
    assert "range of the data" in back.info.provenance["action_bounds"]


def test_dictionary_observations_are_joined_by_name(tmp_path: Path):
    folder = tmp_path / "goal" / "data"
    folder.mkdir(parents=True)
    with h5py.File(folder / MAIN_FILE, "w") as file:
        group = file.create_group("episode_0")
        group["observations/observation"] = np.arange(8.0).reshape(4, 2)
        group["observations/desired_goal"] = np.full((4, 1), 9.0)
        group["actions"] = np.zeros((3, 1))
        group["rewards"] = np.zeros(3)
        group["terminations"] = np.zeros(3, dtype=bool)
        group["truncations"] = np.array([False, False, True])
    box = {"type": "Box", "shape": [1], "low": [-1.0], "high": [1.0]}
    parts = {"desired_goal": box, "observation": {**box, "shape": [2]}}
    metadata = {
        "observation_space": json.dumps({"type": "Dict", "subspaces": parts}),
        "action_space": json.dumps(box),
    }
    (folder / METADATA_FILE).write_text(json.dumps(metadata))
    data = FORMAT.read(tmp_path / "goal")
    assert data.info.obs_names == ("desired_goal[0]", "observation[0]", "observation[1]")
    assert data.episodes[0].observations[1].tolist() == [9, 2, 3]


def test_truncated_file(tmp_path: Path):
    _, path = write(tmp_path)
    file = path / "data" / MAIN_FILE
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated or damaged") as caught:
        open_dataset(path)
    assert caught.value.file == file


def test_missing_key(tmp_path: Path):
    _, path = write(tmp_path)
    with h5py.File(path / "data" / MAIN_FILE, "a") as file:
        del file["episode_1/rewards"]
    with pytest.raises(DataError, match="missing; present: actions, observations") as caught:
        open_dataset(path)
    assert (caught.value.episode, caught.value.field) == ("episode_1", "rewards")


def test_missing_episodes(tmp_path: Path):
    _, path = write(tmp_path)
    with h5py.File(path / "data" / MAIN_FILE, "a") as file:
        del file["episode_1"]
    with pytest.raises(DataError, match="2 episodes, but the metadata counts 3"):
        open_dataset(path)


def test_parts_of_a_dictionary_that_do_not_line_up(tmp_path: Path):
    _, path = write(tmp_path)
    with h5py.File(path / "data" / MAIN_FILE, "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations/a"] = np.zeros((5, 1))
        file["episode_0/observations/b"] = np.zeros((4, 1))
    with pytest.raises(DataError, match="do not line up") as caught:
        open_dataset(path)
    assert (caught.value.episode, caught.value.field) == ("episode_0", "observations")


def test_file_under_another_name_without_metadata(tmp_path: Path):
    data, path = write(tmp_path)
    alone = tmp_path / "alone.hdf5"
    alone.write_bytes((path / "data" / MAIN_FILE).read_bytes())
    back = open_dataset(alone)
    assert back.episode_returns.tolist() == data.episode_returns.tolist()
    assert "range of the data" in back.info.provenance["action_bounds"]


def test_damaged_metadata(tmp_path: Path):
    _, path = write(tmp_path)
    (path / "data" / METADATA_FILE).write_text('{"total')
    with pytest.raises(DataError, match="not readable as JSON"):
        open_dataset(path)


def test_bad_values_name_episode_and_row(tmp_path: Path):
    _, path = write(tmp_path)
    with h5py.File(path / "data" / MAIN_FILE, "a") as file:
        file["episode_2/rewards"][3] = np.nan
    with pytest.raises(DataError, match="nan") as caught:
        open_dataset(path)
    place = (caught.value.file, caught.value.episode, caught.value.field, caught.value.row)
    assert place == (path / "data" / MAIN_FILE, "episode_2", "rewards", 3)


def test_strings_instead_of_numbers(tmp_path: Path):
    _, path = write(tmp_path)
    with h5py.File(path / "data" / MAIN_FILE, "a") as file:
        del file["episode_0/observations"]
        file["episode_0/observations"] = ["a", "b", "c", "d", "e"]
    with pytest.raises(DataError, match="dtype object"):
        open_dataset(path)


def test_infos_and_behaviour_can_be_left_out(tmp_path: Path):
    _, path = write(tmp_path, log_prob=True, infos=True, times=True)
    lean = open_dataset(path, LoadOptions(infos="none"))
    assert lean.episodes[0].infos == {}
    assert lean.episodes[0].behaviour_log_prob is not None
    assert lean.episodes[0].timestamps is not None
    assert open_dataset(path, LoadOptions(behaviour="ignore")).episodes[0].behaviour_log_prob is None


def test_registered():
    assert isinstance(FORMATS.get("minari"), MinariFormat)
    assert {"minari", "d4rl", "npz"} <= set(FORMATS.names())
    assert all(FORMATS.describe().values())


@pytest.fixture
def minari(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return library


@pytest.mark.filterwarnings("ignore")
def test_minari_reads_what_we_write(minari, tmp_path: Path):
    data, _ = write(tmp_path, log_prob=True, infos=True)
    theirs = minari.MinariDataset(tmp_path / "toy" / "data")
    assert theirs.total_episodes == 3
    assert theirs.total_steps == 12
    assert theirs.action_space.high.tolist() == [1.0]
    for ours, episode in zip(data.episodes, theirs.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(episode.observations, ours.observations)
        np.testing.assert_array_equal(episode.actions, ours.actions)
        np.testing.assert_array_equal(episode.rewards, ours.rewards)
        assert bool(episode.terminations[-1]) == ours.terminated
        assert bool(episode.truncations[-1]) == ours.truncated
        np.testing.assert_array_equal(episode.infos["behaviour_log_prob"][:-1], ours.behaviour_log_prob)


@pytest.mark.filterwarnings("ignore")
def test_we_read_what_minari_writes(minari, tmp_path: Path):
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    data = make_dataset((4, 3))
    buffers = [
        EpisodeBuffer(
            observations=list(episode.observations),
            actions=list(episode.actions),
            rewards=[float(r) for r in episode.rewards],
            terminations=[episode.terminated and i == len(episode) - 1 for i in range(len(episode))],
            truncations=[episode.truncated and i == len(episode) - 1 for i in range(len(episode))],
        )
        for episode in data.episodes
    ]
    minari.create_dataset_from_buffers(
        "ours/toy-v0",
        buffers,
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float32),
        action_space=spaces.Box(-1.0, 1.0, (1,), np.float32),
        algorithm_name="by hand",
    )
    back = open_dataset("minari:ours/toy-v0", minari_root=Path(os.environ["MINARI_DATASETS_PATH"]))
    assert back.content_hash == data.content_hash
    assert back.info.name == "ours/toy-v0"
    assert back.info.provenance["algorithm_name"] == "by hand"


@pytest.mark.data
def test_shared_hopper_log(shared_data: Path):
    data = open_dataset(shared_data / "sim" / "hopper" / "medium-v0")
    assert (len(data), data.num_transitions) == (282, 100_000)
    assert data.episode_returns.mean() == pytest.approx(1276.8, abs=0.05)
    assert data.info.env_id == "Hopper-v5"
    assert data.dropped == {}
    assert data.episodes[3].behaviour_log_prob is not None
    assert len(data.episodes[3].behaviour_log_prob) == len(data.episodes[3])
