"""NeoRL's archives in the layout of its files."""

from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.neorl import NeorlFormat
from mbrl.data.open import find_format, open_dataset
from mbrl.data.options import LoadOptions
from tests.data.others import LENGTHS, commands, neorl_arrays, states

CUT = LoadOptions(dones="truncated")


def save(path: Path, **changes: object) -> Path:
    arrays = {key: values for key, values in (neorl_arrays() | changes).items() if values is not None}
    np.savez(path, **arrays)
    return path


def test_the_index_holds_the_ends(tmp_path: Path):
    path = save(tmp_path / "Hopper-v3-low-3-train.npz")
    assert find_format(path).__class__ is NeorlFormat
    data = open_dataset(path, CUT)
    assert data.episode_lengths.tolist() == list(LENGTHS)
    for index, episode in enumerate(data.episodes):
        assert np.array_equal(episode.observations, states(index, LENGTHS[index] + 1))
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index]))
        assert episode.rewards.tolist() == [float(index)] * LENGTHS[index]
    assert data.dropped == {}


def test_an_index_of_first_rows_is_read_too(tmp_path: Path):
    ends = open_dataset(save(tmp_path / "a.npz"), CUT)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    assert open_dataset(save(tmp_path / "b.npz", index=starts), CUT).content_hash == ends.content_hash


def test_done_is_asked_about(tmp_path: Path):
    with pytest.raises(DataError, match="done may mean") as caught:
        open_dataset(save(tmp_path / "x.npz"))
    assert caught.value.field == "done"
    limit = LoadOptions(dones="limit", max_episode_steps=5)
    data = open_dataset(tmp_path / "x.npz", limit)
    assert [episode.terminated for episode in data.episodes] == [True, True, False]


def test_without_a_flag_nothing_terminates(tmp_path: Path):
    data = open_dataset(save(tmp_path / "x.npz", done=None))
    assert not any(episode.terminated for episode in data.episodes)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"index": np.array([4.0, 3.0, 12.0])}, "index", "do not rise"),
        ({"index": np.array([4.0, 40.0])}, "index", "do not rise"),
        ({"index": np.array([4.5, 12.0])}, "index", "rows are needed"),
        ({"index": np.array([np.nan, 12.0])}, "index", "rows are needed"),
        ({"index": np.array(["4", "12"])}, "index", "rows are needed"),
        ({"reward": np.zeros(5)}, "reward", "where the actions have 12 rows"),
        ({"done": np.arange(12) == 1}, "done", "within a trajectory"),
        ({"done": np.full(12, 0.5)}, "done", "neither 0 nor 1"),
    ],
)
def test_what_does_not_fit_together_is_named(
    tmp_path: Path, changes: dict[str, np.ndarray], field: str, words: str
):
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(save(tmp_path / "x.npz", **changes), CUT)
    assert caught.value.field == field
