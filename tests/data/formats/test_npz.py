import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.base import FORMATS
from mbrl.data.formats.npz import NpzFormat
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from tests.data.logs import make_dataset, make_episode

FORMAT = NpzFormat()


def hand_made(**changes: object) -> dict[str, object]:
    """Two episodes of 2 and 3 steps, without any optional key."""
    arrays: dict[str, object] = {
        "lengths": np.array([2, 3]),
        "observations": np.array([0, 1, 2, 100, 101, 102, 103], dtype=np.float64)[:, None],
        "actions": np.zeros((5, 1)),
        "rewards": np.arange(5.0),
        "terminated": np.array([False, True]),
        "truncated": np.array([True, False]),
        "act_low": np.array([-1.0]),
        "act_high": np.array([1.0]),
    }
    return {key: values for key, values in (arrays | changes).items() if values is not None}


def save(path: Path, **changes: object) -> Path:
    np.savez(path, **hand_made(**changes))
    return path


def test_reads_the_documented_layout(tmp_path: Path):
    data = FORMAT.read(save(tmp_path / "x.npz"))
    assert data.episode_lengths.tolist() == [2, 3]
    assert data.transitions().next_observation[:, 0].tolist() == [1, 2, 101, 102, 103]
    assert data.episode_returns.tolist() == [1, 9]
    assert [episode.terminated for episode in data.episodes] == [False, True]
    assert data.info.name == "x"


def test_infos_of_either_length(tmp_path: Path):
    changes = {"infos/a": np.arange(5), "infos/b": np.arange(7)}
    data = FORMAT.read(save(tmp_path / "x.npz", **changes))
    assert data.episodes[1].infos["a"].tolist() == [2, 3, 4]
    assert data.episodes[1].infos["b"].tolist() == [3, 4, 5, 6]


def test_round_trip_keeps_everything(tmp_path: Path):
    data = make_dataset((4, 3, 5), log_prob=True, times=True, infos=True)
    last = make_episode(3, 3, terminated=True, is_final_observation_known=False, log_prob=True, times=True)
    data = dataclasses.replace(data, episodes=(*data.episodes, last))
    back = FORMAT.read(FORMAT.write(data, tmp_path / "x.npz"))
    assert back.content_hash == data.content_hash
    assert (back.info, back.spec, back.dropped) == (data.info, data.spec, {})
    assert back.episodes[1].timestamps.tolist() == data.episodes[1].timestamps.tolist()
    with pytest.raises(FileExistsError):
        FORMAT.write(data, tmp_path / "x.npz")


@pytest.mark.parametrize("log_prob", [False, True])
def test_hash_does_not_depend_on_the_format(tmp_path: Path, log_prob: bool):
    data = make_dataset((40, 3, 5, 30), log_prob=log_prob)
    written = {name: FORMATS.get(name).write(data, tmp_path / name) for name in ("minari", "d4rl", "npz")}
    assert {open_dataset(path).content_hash for path in written.values()} == {data.content_hash}


@pytest.mark.parametrize("key", ["lengths", "observations", "actions", "rewards", "terminated", "truncated"])
def test_missing_key(tmp_path: Path, key: str):
    path = save(tmp_path / "x.npz", **{key: None})
    with pytest.raises(DataError, match="the key is missing") as caught:
        open_dataset(path)
    assert (caught.value.file, caught.value.field) == (path, key)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"observations": np.zeros((5, 1))}, "observations", "5 observations|2 observations"),
        ({"observations": np.zeros((6, 1))}, "observations", "6 rows"),
        ({"actions": np.zeros((4, 1))}, "actions", "4 rows"),
        ({"terminated": np.zeros(5)}, "terminated", "5 rows"),
        ({"lengths": np.array([2.5, 2.5])}, "lengths", "one integer"),
        ({"lengths": np.array([5, 0]), "observations": np.zeros((7, 1))}, "rewards", "no steps"),
        ({"infos/a": np.zeros(6)}, "infos/a", "6 rows"),
        ({"rewards": np.array([0, 1, 2, np.nan, 4])}, "rewards", "nan"),
        ({"truncated": np.array([True, True])}, "truncations", "both"),
        ({"actions": np.full((5, 1), 1.5)}, "actions", "beyond"),
        ({"info": np.array("{")}, "info", "not a description"),
    ],
)
def test_bad_content(tmp_path: Path, changes: dict[str, object], field: str, words: str):
    path = save(tmp_path / "x.npz", **changes)
    with pytest.raises(DataError, match=words) as caught:
        open_dataset(path)
    assert (caught.value.file, caught.value.field) == (path, field)
    assert caught.value.remedy


def test_pickled_objects_are_not_loaded(tmp_path: Path):
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(3), np.zeros(4)]
    path = tmp_path / "x.npz"
    np.savez(path, allow_pickle=True, **hand_made(observations=ragged))
    with pytest.raises(DataError, match="dtype object") as caught:
        open_dataset(path)
    assert caught.value.field == "observations"


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_archive(tmp_path: Path, keep: float):
    path = FORMAT.write(make_dataset((50, 60)), tmp_path / "x.npz")
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match="truncated or damaged") as caught:
        open_dataset(path)
    assert caught.value.file == path


def test_missing_final_observations_can_be_repaired(tmp_path: Path):
    path = save(tmp_path / "x.npz", observations=np.array([0, 1, 100, 101, 102.0])[:, None])
    data = open_dataset(path, LoadOptions(final_observation="repair"))
    assert data.episode_lengths.tolist() == [1, 3]
    assert data.transitions().is_successor_known.tolist() == [True, True, True, False]
