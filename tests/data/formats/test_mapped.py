import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.core.types import SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.formats.base import FORMATS
from mbrl.data.open import find_format, open_dataset
from tests.run.toy import make_dataset


def write(log: Dataset, folder: Path) -> Path:
    return FORMATS.get("mapped").write(log, folder / "log")


def with_extras(log: Dataset) -> Dataset:
    """Densities, time stamps, infos of steps and states, an unknown successor."""
    episodes = [
        dataclasses.replace(
            episode,
            terminated=True,
            truncated=False,
            is_final_observation_known=number != 1,
            observations=np.concatenate([episode.observations[:-1], episode.observations[-2:-1]])
            if number == 1
            else episode.observations,
            behaviour_log_prob=np.linspace(-1, 0, len(episode), dtype=np.float32),
            timestamps=np.arange(len(episode) + 1) * 0.1,
            infos={"mode": np.arange(len(episode)), "force/z": np.ones((len(episode) + 1, 2), np.float32)},
        )
        for number, episode in enumerate(log.episodes)
    ]
    return dataclasses.replace(log, episodes=tuple(episodes))


def test_everything_is_read_as_it_was(tmp_path: Path):
    log = with_extras(make_dataset(4, 9))
    read = open_dataset(write(log, tmp_path))
    assert read.content_hash == log.content_hash
    assert read.info == log.info
    for one, two in zip(log.episodes, read.episodes, strict=True):
        assert two.is_final_observation_known == one.is_final_observation_known
        assert two.timestamps is not None
        assert one.timestamps is not None
        assert two.timestamps.tolist() == one.timestamps.tolist()
        assert {name: values.tolist() for name, values in two.infos.items()} == {
            name: values.tolist() for name, values in one.infos.items()
        }


def test_choices_and_absent_rewards_are_kept(tmp_path: Path):
    log = make_dataset(3, 8, space=SpaceSpec.discrete(3, ("left", "stay", "right")))
    bare = [
        dataclasses.replace(e, rewards=np.full(len(e), np.nan, np.float32), has_rewards=False)
        for e in log.episodes
    ]
    log = dataclasses.replace(log, episodes=tuple(bare))
    read = open_dataset(write(log, tmp_path))
    assert read.spec == log.spec
    assert not read.has_rewards
    assert read.content_hash == log.content_hash


def test_the_folder_is_known_and_written_once(tmp_path: Path):
    path = write(make_dataset(), tmp_path)
    assert find_format(path) is FORMATS.get("mapped")
    with pytest.raises(FileExistsError):
        write(make_dataset(), tmp_path)


def test_nothing_that_is_done_in_memory_reaches_the_file(tmp_path: Path):
    path = write(make_dataset(), tmp_path)
    before = (path / "states.npy").read_bytes()
    read = open_dataset(path)
    with pytest.raises(ValueError, match="read-only"):
        read.episodes[0].observations[0, 0] = 1.0
    assert (path / "states.npy").read_bytes() == before


def test_damage_is_named(tmp_path: Path):
    path = write(make_dataset(), tmp_path)
    np.save(path / "rewards.npy", np.zeros(7, np.float32))
    with pytest.raises(DataError, match="belong to different datasets"):
        open_dataset(path)
    header = json.loads((path / "mapped.json").read_text())
    (path / "mapped.json").write_text(json.dumps({**header, "version": 2}))
    with pytest.raises(DataError, match="not the header of a mapped dataset"):
        open_dataset(path)
