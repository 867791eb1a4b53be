"""Other rewards and terminations for a log."""

from pathlib import Path

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import ConfigError, DataError
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo


@pytest.fixture
def log() -> Dataset:
    """Two episodes of a turning wheel; the second terminates, and its last successor is unknown."""
    episodes = []
    for shift in (0.0, 1.0):
        angle = shift + 0.3 * np.arange(12)
        obs = np.stack([np.cos(angle), np.sin(angle), 0.1 * np.arange(12) + shift], axis=1)
        episodes.append(
            {"observations": obs, "actions": np.sin(np.arange(11.0))[:, None], "rewards": np.zeros(11)}
        )
    episodes[0]["truncated"] = episodes[1]["terminated"] = True
    info = DatasetInfo(
        name="wheel", obs_names=("q_cos", "q_sin", "speed"), act_names=("u",), ref_max_score=1.0
    )
    return Dataset.from_episodes(episodes, act_low=-1.0, act_high=1.0, info=info)


def test_reward_over_names_actions_successors_and_angles(log: Dataset):
    made = mbrl.relabel(log, reward="next_speed - speed + 10 * u + 100 * q")
    angle = 0.3 * np.arange(11)
    wrapped = np.arctan2(np.sin(angle), np.cos(angle))
    expected = 0.1 + 10 * np.sin(np.arange(11)) + 100 * wrapped
    np.testing.assert_allclose(made.episodes[0].rewards, expected, atol=1e-3)
    assert made.info.derived_from == log.content_hash
    assert made.info.reward_rule is not None
    assert "atan2(q_sin, q_cos)" in made.info.reward_rule
    assert made.info.ref_max_score is None
    assert made.content_hash != log.content_hash
    np.testing.assert_array_equal(made.episodes[1].observations, log.episodes[1].observations)
    assert made.content_hash == mbrl.relabel(log, reward="next_speed - speed + 10 * u + 100 * q").content_hash


def test_termination_replaces_what_the_log_says(log: Dataset):
    made = mbrl.relabel(log, termination="next_speed > 0.75")
    assert made.episode_lengths.tolist() == [8, 1]
    assert [episode.terminated for episode in made.episodes] == [True, True]
    assert made.dropped["steps left out after a termination"] == 13
    never = mbrl.relabel(log, termination="speed > 100")
    assert [episode.terminated for episode in never.episodes] == [False, False]
    assert [episode.truncated for episode in never.episodes] == [True, True]
    assert made.has_rewards


def test_a_log_without_rewards_gets_them(log: Dataset):
    bare = Dataset.from_episodes(
        [{"observations": e.observations, "actions": e.actions, "truncated": True} for e in log.episodes],
        act_low=-1.0,
        act_high=1.0,
    )
    made = mbrl.relabel(bare, reward="-obs_2**2 - act_0**2")
    assert made.has_rewards
    assert made.episodes[0].rewards[3] == pytest.approx(-0.09 - np.sin(3) ** 2, rel=1e-5)


def test_unknown_successors_are_not_read(log: Dataset):
    rows = log.transitions()
    flat = Dataset.from_arrays(
        rows.observation,
        rows.action,
        rows.reward,
        rows.terminated,
        rows.truncated,
        act_low=-1.0,
        act_high=1.0,
    )
    assert not flat.episodes[1].is_final_observation_known
    made = mbrl.relabel(flat, reward="next_obs_2")
    assert made.dropped["rows dropped: no successor"] >= 1
    assert made.episodes[1].is_final_observation_known
    kept = mbrl.relabel(flat, reward="obs_2")
    assert len(kept.episodes[1]) == len(flat.episodes[1])
    assert kept.episodes[1].terminated
    held = mbrl.relabel(flat, termination="obs_2 > 100")
    assert held.episodes[1].terminated  # nothing to bootstrap from


def test_a_function_of_a_file_and_one_in_memory(log: Dataset, tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def reward(obs, act, next_obs):\n    return obs[:, 2] + 2 * act[:, 0]\n", encoding="utf-8"
    )
    made = mbrl.relabel(log, module=f"{file}:reward")
    np.testing.assert_allclose(
        made.episodes[0].rewards, 0.1 * np.arange(11) + 2 * np.sin(np.arange(11)), atol=1e-6
    )
    assert made.info.provenance["reward"].startswith("function reward of mine.py, blake2b ")
    assert made.info.reward_rule is None
    same = mbrl.relabel(log, module=lambda obs, act, after: obs[:, 2] + 2 * act[:, 0])
    np.testing.assert_array_equal(same.episodes[1].rewards, made.episodes[1].rewards)


@pytest.mark.parametrize("to", ["minari", "npz", "d4rl"])
def test_the_link_travels(log: Dataset, to: str, tmp_path: Path):
    made = mbrl.relabel(log, reward="speed", out=tmp_path / "new", to=to)
    assert made.info.derived_from == log.content_hash
    assert made.info.reward_rule == "speed"
    assert "derived from" in str(mbrl.inspect(tmp_path / "new"))


def test_what_cannot_be(log: Dataset, tmp_path: Path):
    with pytest.raises(ConfigError, match="Give a reward"):
        mbrl.relabel(log)
    with pytest.raises(ConfigError, match="Give a reward"):
        mbrl.relabel(log, reward="speed", module=len)
    with pytest.raises(ConfigError, match=r"unknown name 'sped'\. Did you mean 'speed'\?"):
        mbrl.relabel(log, reward="sped")
    with pytest.raises(DataError, match="the new reward is nan") as caught:
        mbrl.relabel(log, reward="sqrt(speed - 0.45)")
    assert (caught.value.episode, caught.value.row) == (0, 0)
    for text, words in (
        ("nonsense", "does not name a function"),
        (f"{tmp_path / 'no.py'}:f", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words):
            mbrl.relabel(log, module=text)
    (tmp_path / "bad.py").write_text("def f(a, b, c):\n    return 1 / 0\ndef g(a, b, c):\n    return 3\n")
    for name, words in (("f", "ZeroDivisionError"), ("g", r"shape \[\] for 11 steps"), ("h", "It has: f, g")):
        with pytest.raises(ConfigError, match=words):
            mbrl.relabel(log, module=f"{tmp_path / 'bad.py'}:{name}")
    (tmp_path / "worse.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(ConfigError, match="ModuleNotFoundError"):
        mbrl.relabel(log, module=f"{tmp_path / 'worse.py'}:f")
    (tmp_path / "there").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        mbrl.relabel(log, reward="speed", out=tmp_path / "there")
