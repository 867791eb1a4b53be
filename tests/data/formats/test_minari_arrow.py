"""Minari's Arrow and Parquet layouts, as documented and as the library writes them."""

import json
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.formats.minari_arrow import MinariArrowFormat
from mbrl.data.open import find_format, open_dataset
from tests.data.others import LENGTHS, commands, states, write_minari_arrow

pytest.importorskip("pyarrow")
KINDS = ("arrow", "parquet")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", ["", "data"])
def test_the_padding_is_not_read(tmp_path: Path, kind: str, inside: str):
    path = write_minari_arrow(tmp_path / "leg", kind) / inside
    assert find_format(path).__class__ is MinariArrowFormat
    data = open_dataset(path)
    assert data.episode_lengths.tolist() == list(LENGTHS)
    for index, episode in enumerate(data.episodes):
        assert np.array_equal(episode.observations, states(index, LENGTHS[index] + 1))
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index]))
        assert episode.episode_return == index * LENGTHS[index]
        assert episode.terminated == (index % 2 == 1)
    assert data.info.name == "leg/test-v0"
    assert (data.spec.act_low, data.dropped) == ((-1.0,), {})


@pytest.mark.parametrize("kind", KINDS)
def test_long_episodes_are_read_whole(tmp_path: Path, kind: str):
    """The library's reader takes batches of 32,768 rows for episodes."""
    data = open_dataset(write_minari_arrow(tmp_path / "leg", kind, lengths=(40_000, 5)))
    assert data.episode_lengths.tolist() == [40_000, 5]
    assert data.episodes[1].observations[:, 0].tolist() == [100, 101, 102, 103, 104, 105]


def test_missing_episodes_are_found(tmp_path: Path):
    path = write_minari_arrow(tmp_path / "leg")
    next((path / "data" / "1").iterdir()).unlink()
    with pytest.raises(DataError, match="2 episodes, but the metadata counts 3"):
        open_dataset(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_a_cut_file_is_named(tmp_path: Path, kind: str, keep: float):
    path = write_minari_arrow(tmp_path / "leg", kind)
    file = path / "data" / "2" / f"part-0.{kind}"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError) as caught:
        open_dataset(path)
    assert caught.value.file == file
    assert caught.value.remedy


def test_actions_that_are_none_of_the_choices_are_refused(tmp_path: Path):
    path = write_minari_arrow(tmp_path / "leg")
    file = path / "data" / "metadata.json"
    space = json.dumps({"type": "Discrete", "n": 4, "start": 0, "dtype": "int64"})
    file.write_text(json.dumps(json.loads(file.read_text()) | {"action_space": space}))
    with pytest.raises(DataError, match="is none of the 4 choices"):
        open_dataset(path)


@pytest.mark.filterwarnings("ignore:`eval_env` is set to None", "ignore:env_spec is None")
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_library_writes_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    minari = pytest.importorskip("minari")
    import gymnasium
    from minari.data_collector.episode_buffer import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffers = [
        EpisodeBuffer(
            id=index,
            observations={
                "b_speed": states(index, steps + 1)[:, 1:],
                "a_place": states(index, steps + 1)[:, :1],
            },
            actions=commands(index, steps),
            rewards=np.full(steps, float(index)),
            terminations=np.zeros(steps, dtype=bool),
            truncations=np.arange(steps) == steps - 1,
            infos={"power": np.arange(steps + 1.0)},
        )
        for index, steps in enumerate(LENGTHS)
    ]
    box = gymnasium.spaces.Box(-1e4, 1e4, (1,), np.float32)
    minari.create_dataset_from_buffers(
        dataset_id="leg/theirs-v0",
        buffer=buffers,
        observation_space=gymnasium.spaces.Dict({"b_speed": box, "a_place": box}),
        action_space=gymnasium.spaces.Box(-1, 1, (1,), np.float32),
        data_format=kind,
        **dict.fromkeys(("author", "author_email", "code_permalink", "algorithm_name", "description"), "x"),
    )
    data = open_dataset("minari:leg/theirs-v0", minari_root=tmp_path)
    assert data.info.obs_names == ("a_place[0]", "b_speed[0]")
    for index, episode in enumerate(data.episodes):
        assert np.array_equal(episode.observations, states(index, LENGTHS[index] + 1))
        assert np.array_equal(episode.actions, commands(index, LENGTHS[index]))
        assert episode.infos["power"].tolist() == list(range(LENGTHS[index] + 1))
