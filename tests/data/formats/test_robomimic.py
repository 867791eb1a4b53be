"""robomimic's files in the layout that its converters write."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.robomimic import RobomimicFormat
from mbrl.data.open import find_format, open_dataset
from mbrl.data.options import LoadOptions
from tests.data.others import LENGTHS, commands, states, write_robomimic

CUT = LoadOptions(dones="truncated")


def test_vectors_are_put_side_by_side_by_name(tmp_path: Path):
    path = write_robomimic(tmp_path / "x.hdf5")
    assert find_format(path).__class__ is RobomimicFormat
    data = open_dataset(path, CUT)
    assert data.info.obs_names == ("gripper", "joint_pos[0]", "joint_pos[1]")
    assert data.info.provenance["env_name"] == "Lift"
    for index, episode in enumerate(data.episodes):
        rows = states(index, LENGTHS[index] + 1)
        assert np.array_equal(episode.observations[:, 1:], rows)
        assert np.array_equal(episode.observations[:, 0], rows[:, 0] / 100)
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index]))
        assert episode.rewards.tolist() == [0.0] * (LENGTHS[index] - 1) + [1.0]
    assert data.dropped == {"unsupported column left out: obs/agentview_image (images)": 1}


def test_keys_choose_and_order(tmp_path: Path):
    path = write_robomimic(tmp_path / "x.hdf5")
    data = open_dataset(path, LoadOptions(dones="truncated", obs_keys=("joint_pos",)))
    assert data.info.obs_names == ("joint_pos[0]", "joint_pos[1]")
    with pytest.raises(DataError, match=r"Did you mean 'joint_pos'\?"):
        open_dataset(path, LoadOptions(dones="truncated", obs_keys=("joint_po",)))
    with pytest.raises(DataError, match=r"no vectors .* obs/agentview_image \(images\)"):
        open_dataset(path, LoadOptions(obs_keys=("agentview_image",)))


@pytest.mark.parametrize("done_mode", [0, 1])
def test_done_is_asked_about(tmp_path: Path, done_mode: int):
    path = write_robomimic(tmp_path / "x.hdf5", done_mode=done_mode)
    with pytest.raises(DataError, match="dones may mean") as caught:
        open_dataset(path)
    assert caught.value.field == "dones"
    for answer, terminated in (("terminated", True), ("truncated", False)):
        data = open_dataset(path, LoadOptions.model_validate({"dones": answer}))
        assert {episode.terminated for episode in data.episodes} == {terminated}
        assert data.episodes[2].infos["dones"].sum() == (2 if done_mode == 0 else 1)


def test_without_successors_the_last_step_is_dropped(tmp_path: Path):
    data = open_dataset(write_robomimic(tmp_path / "x.hdf5", next_obs=False), CUT)
    assert data.episode_lengths.tolist() == [3, 2, 4]
    assert data.dropped["rows dropped: no successor"] == 3


def test_a_repeated_observation_is_no_successor(tmp_path: Path):
    """The library's converter of D4RL writes the last observation again, and done at time limits."""
    path = write_robomimic(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        for key in ("joint_pos", "gripper"):
            file[f"data/demo_0/next_obs/{key}"][-1] = file[f"data/demo_0/obs/{key}"][-1]
    data = open_dataset(path, CUT)
    assert data.episode_lengths.tolist() == [3, 3, 5]
    assert data.dropped["last successors that repeat the observation, not believed"] == 1
    ended = open_dataset(path, LoadOptions(dones="terminated"))
    assert [e.is_final_observation_known for e in ended.episodes] == [False, True, True]


def test_filter_keys_are_tags(tmp_path: Path):
    data = open_dataset(write_robomimic(tmp_path / "x.hdf5"), CUT)
    tags = [[bool(e.infos[f"split/{name}"].all()) for name in ("train", "valid")] for e in data.episodes]
    assert tags == [[True, False], [False, True], [True, False]]


def test_demonstrations_are_ordered_by_number(tmp_path: Path):
    data = open_dataset(write_robomimic(tmp_path / "x.hdf5", lengths=[3] * 12), CUT)
    assert [episode.observations[0, 1] for episode in data.episodes] == [100.0 * i for i in range(12)]


def test_rewards_may_be_absent(tmp_path: Path):
    assert not open_dataset(write_robomimic(tmp_path / "x.hdf5", rewards=False), CUT).has_rewards


def test_states_alone_name_the_converter(tmp_path: Path):
    path = write_robomimic(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs"]
    with pytest.raises(DataError, match="simulator states alone") as caught:
        open_dataset(path)
    assert "dataset_states_to_obs.py" in str(caught.value.remedy)


def test_other_keys_in_one_demonstration_are_named(tmp_path: Path):
    path = write_robomimic(tmp_path / "x.hdf5")
    with h5py.File(path, "a") as file:
        del file["data/demo_1/obs/gripper"]
    with pytest.raises(DataError, match="its observations are joint_pos, where demo_0 has gripper") as caught:
        open_dataset(path, CUT)
    assert caught.value.episode == "demo_1"
    assert "obs_keys" in str(caught.value.remedy)
