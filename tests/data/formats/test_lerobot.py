"""LeRobot datasets of both versions, in the layout of the documentation and on a real one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.data.formats.lerobot import LerobotFormat
from mbrl.data.open import find_format, open_dataset
from mbrl.data.options import LoadOptions
from tests.data.others import LENGTHS, commands, lerobot_features, states, write_lerobot, write_parquet

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
def test_frames_are_transitions_but_for_the_last(tmp_path: Path, version: str):
    path = write_lerobot(tmp_path / "leg", version)
    assert find_format(path).__class__ is LerobotFormat
    data = open_dataset(path)
    assert data.episode_lengths.tolist() == [3, 2, 4]
    for index, episode in enumerate(data.episodes):
        assert np.array_equal(episode.observations, states(index, LENGTHS[index]))
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index])[:-1])
        assert (episode.terminated, episode.truncated, episode.has_rewards) == (False, True, False)
    assert data.dropped == {
        "rows dropped: no successor": 3,
        "unsupported column left out: observation.images.front (video)": 1,
    }


def test_names_are_channels_and_the_rate_is_the_step(tmp_path: Path):
    info = open_dataset(write_lerobot(tmp_path / "leg")).info
    assert (info.name, info.obs_names, info.act_names) == ("leg", ("hip", "knee"), ("torque",))
    assert info.time_step == 0.02
    assert info.provenance["robot_type"] == "leg"


def test_versions_agree(tmp_path: Path):
    hashes = {open_dataset(write_lerobot(tmp_path / v, v)).content_hash for v in ("v2.1", "v3.0")}
    assert len(hashes) == 1


def test_stamps_are_exact_where_float32_holds_them_no_longer(tmp_path: Path):
    """After a day at 50 Hz float32 has steps of 8 ms: stamps repeat, and the rate would seem to jitter."""
    frames = 60
    first = 24 * 3600 * 50
    number = first + np.arange(frames)
    stamps = (number / 50).astype(np.float32)
    assert len(np.unique(stamps)) < frames or np.ptp(np.diff(stamps)) > 0.003
    extra = {"frame_index": [number], "timestamp": [stamps]}
    path = write_lerobot(tmp_path / "leg", lengths=(frames,), extra=extra)
    times = open_dataset(path).episodes[0].timestamps
    assert times is not None
    assert np.allclose(np.diff(times), 0.02, atol=1e-9)
    assert len(times) == frames


def test_real_stamps_are_kept(tmp_path: Path):
    stamps = np.array([0.0, 0.031, 0.052, 0.099])
    path = write_lerobot(tmp_path / "leg", lengths=(4,), extra={"timestamp": [stamps]})
    times = open_dataset(path).episodes[0].timestamps
    assert times is not None
    assert times.tolist() == stamps.tolist()


def test_episodes_are_told_by_their_number_not_by_their_place(tmp_path: Path):
    """Rows of a file in another order, and an episode that goes on in the next file."""
    path = write_lerobot(tmp_path / "leg", "v3.0")
    expected = open_dataset(path).content_hash
    from pyarrow import concat_tables, parquet

    files = sorted((path / "data").rglob("*.parquet"))
    whole = concat_tables([parquet.ParquetFile(file).read() for file in files])
    for file, rows in zip(files, ([9, 8, 7, 0, 1, 2, 3, 11], [10, 6, 5, 4]), strict=True):
        parquet.write_table(whole.take(rows), file)
    assert open_dataset(path).content_hash == expected


def test_splits_are_tags(tmp_path: Path):
    data = open_dataset(write_lerobot(tmp_path / "leg"))
    tags = [[bool(e.infos[f"split/{name}"].all()) for name in ("train", "test")] for e in data.episodes]
    assert tags == [[True, False], [True, False], [False, True]]


def reward_extra(**ends: tuple[bool, ...]) -> dict[str, list[np.ndarray]]:
    extra = {"next.reward": [np.full(n, index, dtype=np.float32) for index, n in enumerate(LENGTHS)]}
    for name, flags in ends.items():
        extra[f"next.{name}"] = [
            (np.arange(n) == n - 1) & flag for n, flag in zip(LENGTHS, flags, strict=True)
        ]
    return extra


def test_rewards_are_those_after_the_action(tmp_path: Path):
    data = open_dataset(write_lerobot(tmp_path / "leg", extra=reward_extra()))
    assert data.has_rewards
    assert data.episode_returns.tolist() == [0, 2, 8]


def test_done_is_asked_about(tmp_path: Path):
    path = write_lerobot(tmp_path / "leg", extra=reward_extra(done=(True, True, True)))
    with pytest.raises(DataError, match=r"next.done may mean") as caught:
        open_dataset(path)
    assert (caught.value.field, caught.value.file) == ("next.done", path)
    data = open_dataset(path, LoadOptions(dones="limit", max_episode_steps=5))
    assert [episode.terminated for episode in data.episodes] == [True, True, False]
    assert data.episode_lengths.tolist() == [4, 3, 4]  # a termination keeps its step
    assert data.transitions().is_successor_known.tolist()[:4] == [True, True, True, False]


def test_truncated_tells_the_two_ends_apart(tmp_path: Path):
    extra = reward_extra(done=(True, True, True), truncated=(True, False, True))
    data = open_dataset(write_lerobot(tmp_path / "leg", extra=extra))
    assert [episode.terminated for episode in data.episodes] == [False, True, False]


def two_vectors(tmp_path: Path, **options: Any) -> Any:
    features = lerobot_features(
        **{
            "observation.effort": {"dtype": "float32", "shape": [2], "names": ["hip", "knee"]},
            "observation.height": {"dtype": "float64", "shape": [1], "names": None},
        }
    )
    extra = {
        "observation.effort": [7 + states(index, n) for index, n in enumerate(LENGTHS)],
        "observation.height": [np.arange(n) * 1.0 for n in LENGTHS],
    }
    path = write_lerobot(tmp_path / "leg", features=features, extra=extra)
    return open_dataset(path, LoadOptions(**options))


def test_all_vectors_are_observed_the_state_first(tmp_path: Path):
    data = two_vectors(tmp_path)
    assert data.info.obs_names == (
        *("observation.state.hip", "observation.state.knee"),
        *("observation.effort.hip", "observation.effort.knee"),
        "observation.height",
    )
    assert data.episodes[2].observations[1].tolist() == [201, -100.5, 208, -93.5, 1]


def test_keys_choose_what_is_observed(tmp_path: Path):
    data = two_vectors(tmp_path, obs_keys=("height", "observation.state"))
    assert data.info.obs_names == ("observation.height", "hip", "knee")
    assert data.episodes[2].infos["observation.effort"].shape == (4 + 1, 2)


def test_a_typo_names_the_key_that_was_meant(tmp_path: Path):
    with pytest.raises(DataError, match=r"Did you mean 'observation.effort'\?"):
        two_vectors(tmp_path, obs_keys=("observation.efort",))
    with pytest.raises(DataError, match=r"named 'observation.images.front' \(video is none\)"):
        open_dataset(write_lerobot(tmp_path / "b"), LoadOptions(obs_keys=("observation.images.front",)))


def test_a_dataset_of_images_is_named_as_such(tmp_path: Path):
    path = write_lerobot(tmp_path / "leg", features=lerobot_features(**{"observation.state": None}))
    with pytest.raises(
        DataError, match=r"no vector of numbers .* observation.images.front \(video\)"
    ) as caught:
        open_dataset(path)
    assert "Images are unsupported" in str(caught.value.remedy)


def test_integers_are_choices(tmp_path: Path):
    features = lerobot_features(action={"dtype": "int64", "shape": [1], "names": ["choice"]})
    extra = {"action": [np.arange(n) % 3 for n in LENGTHS]}
    data = open_dataset(write_lerobot(tmp_path / "leg", features=features, extra=extra))
    assert data.spec.choices == data.act_names == ("0", "1", "2")


@pytest.mark.parametrize("key", ["total_episodes", "total_frames"])
def test_missing_files_are_found_by_the_totals(tmp_path: Path, key: str):
    with pytest.raises(DataError, match="are there, and 99 are stated") as caught:
        open_dataset(write_lerobot(tmp_path / "leg", **{key: 99}))
    assert caught.value.field == key


def test_missing_frames_are_named(tmp_path: Path):
    extra = {"frame_index": [np.array([0, 1, 3, 4]), np.arange(3), np.arange(5)]}
    with pytest.raises(DataError, match="frame 3 follows frame 1") as caught:
        open_dataset(write_lerobot(tmp_path / "leg", extra=extra))
    assert (caught.value.episode, caught.value.row) == (0, 2)


def test_older_versions_name_the_converter(tmp_path: Path):
    with pytest.raises(DataError, match=r"version 'v1\.6'") as caught:
        open_dataset(write_lerobot(tmp_path / "leg", codebase_version="v1.6"))
    assert "convert" in str(caught.value.remedy)


def test_ragged_rows_and_gaps_are_named(tmp_path: Path):
    path = write_lerobot(tmp_path / "leg")
    file = path / "data/chunk-000/episode_000001.parquet"
    columns = {"frame_index": [0, 1, 2], "episode_index": [1, 1, 1], "action": np.zeros((3, 1))}
    for state, words in (
        ([[0.0, 1.0], [2.0], [3.0, 4.0]], "1 numbers in a row"),
        ([[0.0, 1.0], None, [1.0, 2.0]], "null"),
    ):
        write_parquet(file, {**columns, "observation.state": state})
        with pytest.raises(DataError, match=words) as caught:
            open_dataset(path)
        assert (caught.value.file, caught.value.field, caught.value.row) == (file, "observation.state", 1)


def test_a_description_of_another_file_is_found(tmp_path: Path):
    features = lerobot_features(action={"dtype": "float32", "shape": [6], "names": None})
    with pytest.raises(DataError, match="describes 6 numbers"):
        open_dataset(write_lerobot(tmp_path / "leg", features=features))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_lerobot(tmp_path / "leg")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"mbrl-offline\[tables\]"):
        open_dataset(path)


def test_it_is_read_not_written(tmp_path: Path):
    data = open_dataset(write_lerobot(tmp_path / "leg"))
    with pytest.raises(DataError, match="read, not written"):
        LerobotFormat().write(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_a_real_humanoid(shared_data: Path):
    """Teleoperation of a Unitree G1: an episode is that of its own Parquet file."""
    from pyarrow import parquet

    path = shared_data / "real" / "g1_lerobot"
    data = open_dataset(path)
    assert (len(data), data.num_transitions, data.has_rewards) == (100, 35_965 - 100, False)
    assert data.info.obs_names[:2] == ("kLeftShoulderPitch", "kLeftShoulderRoll")
    frames = parquet.ParquetFile(path / "data/chunk-000/episode_000007.parquet").read()
    expected = np.array(frames.column("observation.state").to_pylist(), dtype=np.float32)
    assert np.array_equal(data.episodes[7].observations, expected)
    logged = json.loads((path / "meta/episodes.jsonl").read_text().splitlines()[7])["length"]
    assert len(data.episodes[7]) == logged - 1
