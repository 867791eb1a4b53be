"""OGBench's archives in the layout of its files, and as its own loader reads them."""

from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.ogbench import OgbenchFormat
from mbrl.data.open import find_format, open_dataset
from tests.data.others import LENGTHS, commands, ogbench_arrays, states


def save(path: Path, **changes: object) -> Path:
    arrays = {key: values for key, values in (ogbench_arrays() | changes).items() if values is not None}
    np.savez_compressed(path, **arrays)
    return path


def test_the_last_row_is_an_observation_alone(tmp_path: Path):
    path = save(tmp_path / "point-navigate-v0.npz")
    assert find_format(path).__class__ is OgbenchFormat
    data = open_dataset(path)
    assert data.episode_lengths.tolist() == list(LENGTHS)
    for index, episode in enumerate(data.episodes):
        assert np.array_equal(episode.observations, states(index, LENGTHS[index] + 1))
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index]))
        assert (episode.terminated, episode.truncated, episode.has_rewards) == (False, True, False)
        assert episode.infos["qpos"].shape == (LENGTHS[index] + 1, 1)
    assert data.dropped == {}
    assert np.abs(data.transitions().action).max() <= 1  # the meaningless 9 is gone


def test_the_validation_file_is_a_split(tmp_path: Path):
    save(tmp_path / "point-navigate-v0.npz")
    arrays = ogbench_arrays((6, 2))
    np.savez_compressed(tmp_path / "point-navigate-v0-val.npz", **arrays)
    data = open_dataset(tmp_path)
    assert data.info.name == "point-navigate-v0"
    assert data.episode_lengths.tolist() == [*LENGTHS, 6, 2]
    assert [bool(e.infos["split/val"].all()) for e in data.episodes] == [False] * 3 + [True] * 2
    assert open_dataset(tmp_path / "point-navigate-v0-val.npz").episode_lengths.tolist() == [6, 2]


def test_two_archives_that_do_not_belong_together_are_no_dataset(tmp_path: Path):
    save(tmp_path / "a-v0.npz")
    save(tmp_path / "b-v0.npz")
    with pytest.raises(DataError, match="no format reads it"):
        open_dataset(tmp_path)


def test_flags_without_simulator_states_are_not_taken_for_ends(tmp_path: Path):
    """`terminals` of anybody else means that the task ended."""
    path = save(tmp_path / "x.npz", qpos=None, qvel=None)
    assert find_format(path).__class__ is not OgbenchFormat
    with pytest.raises(DataError, match="the key is missing") as caught:
        open_dataset(path)
    assert caught.value.field == "rewards"


def test_a_cut_file_is_refused(tmp_path: Path):
    cut = {key: values[:-2] for key, values in ogbench_arrays().items()}
    with pytest.raises(DataError, match="not whole") as caught:
        open_dataset(save(tmp_path / "x.npz", **cut))
    assert caught.value.row == 12


@pytest.mark.parametrize("key", ["observations", "terminals"])
def test_arrays_that_do_not_line_up_are_named(tmp_path: Path, key: str):
    with pytest.raises(DataError, match="where the actions have 15 rows") as caught:
        open_dataset(save(tmp_path / "x.npz", **{key: np.zeros((7, 2))}))
    assert caught.value.field == key


def test_the_library_reads_the_same_transitions(tmp_path: Path):
    utils = pytest.importorskip("ogbench.utils")
    path = save(tmp_path / "x.npz")
    theirs, ours = utils.load_dataset(str(path)), open_dataset(path).transitions()
    for key, values in (("observations", ours.observation), ("next_observations", ours.next_observation),
                        ("actions", ours.action), ("terminals", ours.truncated)):  # fmt: skip
        assert np.array_equal(theirs[key], values)
