"""d3rlpy's files of both versions, in their layout and as the library writes them."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.d3rlpy import D3rlpyFormat
from mbrl.data.open import find_format, open_dataset
from tests.data.others import LENGTHS, commands, states, write_d3rlpy, write_d3rlpy_1


@pytest.mark.parametrize("write", [write_d3rlpy, write_d3rlpy_1])
def test_a_cut_loses_its_last_row_and_a_termination_does_not(tmp_path: Path, write: object):
    path = write(tmp_path / "x.h5")  # type: ignore[operator]
    assert find_format(path).__class__ is D3rlpyFormat
    data = open_dataset(path)
    assert data.episode_lengths.tolist() == [3, 3, 4]
    assert [episode.terminated for episode in data.episodes] == [False, True, False]
    assert [episode.is_final_observation_known for episode in data.episodes] == [True, False, True]
    for index, episode in enumerate(data.episodes):
        assert np.array_equal(episode.observations[:3], states(index, LENGTHS[index])[:3])
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index])[: len(episode)])
        assert episode.rewards.tolist() == [float(index)] * len(episode)
    assert data.dropped == {"rows dropped: no successor": 2, "terminal successors unknown": 1}


def test_versions_agree(tmp_path: Path):
    first, second = write_d3rlpy_1(tmp_path / "1.h5"), write_d3rlpy(tmp_path / "2.h5")
    assert open_dataset(first).content_hash == open_dataset(second).content_hash


def test_tuples_of_observations_are_put_side_by_side(tmp_path: Path):
    plain, parts = write_d3rlpy(tmp_path / "a.h5"), write_d3rlpy(tmp_path / "b.h5", is_tuple=True)
    assert open_dataset(plain).content_hash == open_dataset(parts).content_hash


def test_episodes_are_ordered_by_number(tmp_path: Path):
    data = open_dataset(write_d3rlpy(tmp_path / "x.h5", lengths=[3] * 12))
    assert [episode.observations[0, 0] for episode in data.episodes] == [100.0 * i for i in range(12)]


def test_integers_are_choices(tmp_path: Path):
    path = write_d3rlpy(tmp_path / "2.h5")
    with h5py.File(path, "a") as file:
        for index, steps in enumerate(len(file[f"actions_{index}"]) for index in range(3)):
            del file[f"actions_{index}"]
            file[f"actions_{index}"] = np.arange(steps)[:, None] % 3 if index else np.arange(steps) % 3
    data = open_dataset(path)
    assert data.spec.choices == ("0", "1", "2")
    assert data.episodes[0].actions[:3].argmax(1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_version_1_says_that_actions_are_choices(tmp_path: Path, kind: type):
    path = write_d3rlpy_1(tmp_path / "1.h5", discrete=True)
    with h5py.File(path, "a") as file:
        ids = np.asarray(file["actions"])
        del file["actions"]
        file["actions"] = ids.astype(kind)
    assert open_dataset(path).spec.choices == ("0", "1")
    with h5py.File(path, "a") as file:
        del file["actions"]
        file["actions"] = ids + 0.5
    with pytest.raises(DataError, match="no integers") as caught:
        open_dataset(path)
    assert caught.value.field == "actions"


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path):
    path = write_d3rlpy(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        del file["actions_2"]
    with pytest.raises(DataError, match="2 episodes, but the file counts 3"):
        open_dataset(path)


def test_images_are_named_as_such(tmp_path: Path):
    path = write_d3rlpy(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        for index, steps in enumerate(LENGTHS):
            del file[f"observations_{index}"]
            file[f"observations_{index}"] = np.zeros((steps, 3, 16, 16), dtype=np.uint8)
    with pytest.raises(DataError, match="images"):
        open_dataset(path)


def test_what_the_library_dumps_is_read(tmp_path: Path):
    library = pytest.importorskip("d3rlpy")
    number = np.concatenate([states(index, steps) for index, steps in enumerate(LENGTHS)])
    ends = np.concatenate([np.arange(steps) == steps - 1 for steps in LENGTHS])
    is_odd = np.repeat(np.arange(3) % 2 == 1, LENGTHS)
    dataset = library.dataset.MDPDataset(
        observations=number,
        actions=np.concatenate([commands(index, steps) for index, steps in enumerate(LENGTHS)]),
        rewards=np.repeat(np.arange(3.0), LENGTHS),
        terminals=(ends & is_odd).astype(np.float32),
        timeouts=(ends & ~is_odd).astype(np.float32),
    )
    with (tmp_path / "theirs.h5").open("w+b") as stream:
        dataset.dump(stream)
    ours = open_dataset(write_d3rlpy(tmp_path / "ours.h5"))
    assert open_dataset(tmp_path / "theirs.h5").content_hash == ours.content_hash
