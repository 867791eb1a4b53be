"""Flat rows under the names that people give them; what a flag named done means is asked, not guessed."""

from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.flat import FLAT_NAMES
from mbrl.data.formats.flat_npz import FlatNpzFormat
from mbrl.data.open import find_format, open_dataset
from mbrl.data.options import LoadOptions
from tests.data.logs import make_dataset

FORMAT = FlatNpzFormat()
LENGTHS = (4, 3, 4)


def flat_log() -> dict[str, np.ndarray]:
    """Episodes of 4, 3 and 4 rows; observation = 10 * episode + step; the second is a failure."""
    number = np.concatenate([10.0 * index + np.arange(steps) for index, steps in enumerate(LENGTHS)])
    ends = np.cumsum(LENGTHS) - 1
    terminals, timeouts = np.zeros(len(number), dtype=bool), np.zeros(len(number), dtype=bool)
    terminals[ends[1]] = True
    timeouts[ends[[0, 2]]] = True
    return {
        "observations": np.stack([number, -number], axis=1),
        "actions": np.sin(number)[:, None],
        "rewards": number,
        "terminals": terminals,
        "timeouts": timeouts,
        "next_observations": np.stack([number + 1, -number - 1], axis=1),
    }


def save(path: Path, names: dict[str, str] | None = None, **changes: object) -> Path:
    """The log, with arrays under other names."""
    arrays = {key: values for key, values in (flat_log() | changes).items() if values is not None}
    np.savez(path, **{(names or {}).get(key, key): values for key, values in arrays.items()})
    return path


def done_log(path: Path, **changes: object) -> Path:
    log = flat_log()
    return save(path, done=log["terminals"] | log["timeouts"], terminals=None, timeouts=None, **changes)


def test_every_row_survives_with_successors(tmp_path: Path):
    data = open_dataset(save(tmp_path / "x.npz"))
    rows = data.transitions()
    assert data.episode_lengths.tolist() == [4, 3, 4]
    assert np.array_equal(rows.next_observation, flat_log()["next_observations"])
    assert [episode.terminated for episode in data.episodes] == [False, True, False]
    assert data.dropped == {}


def test_without_successors_the_last_rows_lose_theirs(tmp_path: Path):
    data = open_dataset(save(tmp_path / "x.npz", next_observations=None))
    assert data.episode_lengths.tolist() == [3, 3, 3]
    assert data.transitions().is_successor_known.tolist() == [True] * 5 + [False] + [True] * 3
    assert data.dropped == {"rows dropped: no successor": 2, "terminal successors unknown": 1}


ALIASES = [(key, name) for key, names in FLAT_NAMES.items() for name in names if key in flat_log()]


@pytest.mark.parametrize(("key", "name"), ALIASES)
def test_every_name_is_known(tmp_path: Path, key: str, name: str):
    expected = open_dataset(save(tmp_path / "a.npz")).content_hash
    path = save(tmp_path / "b.npz", {key: name})
    assert find_format(path).__class__ is FlatNpzFormat
    assert open_dataset(path).content_hash == expected


def test_names_of_gymnasium_and_replay_buffers(tmp_path: Path):
    names = {"observations": "obs", "actions": "action", "rewards": "reward", "terminals": "terminated",
             "timeouts": "truncated", "next_observations": "next_obs"}  # fmt: skip
    data = open_dataset(save(tmp_path / "b.npz", names))
    assert data.content_hash == open_dataset(save(tmp_path / "a.npz")).content_hash


def test_two_names_of_one_thing_are_refused(tmp_path: Path):
    path = save(tmp_path / "x.npz", obs=flat_log()["observations"])
    with pytest.raises(DataError, match="observations and obs are names of the same"):
        open_dataset(path)


def test_done_is_asked_about(tmp_path: Path):
    with pytest.raises(
        DataError, match="may mean that the task ended or that the recording was cut"
    ) as caught:
        open_dataset(done_log(tmp_path / "x.npz"))
    assert caught.value.field == "done"
    assert all(
        f"dones={answer}" in str(caught.value.remedy) for answer in ("terminated", "truncated", "limit")
    )
    assert "have 3 to 4 steps" in str(caught.value)


def test_done_at_one_step_looks_like_a_time_limit(tmp_path: Path):
    ends = np.arange(12) % 4 == 3
    arrays = {"obs": np.zeros((12, 1)), "act": np.zeros((12, 1)), "rew": np.zeros(12), "done": ends}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match="all 3 episodes end at step 4, as a time limit does"):
        open_dataset(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("options", "terminated"),
    [
        ({"dones": "terminated"}, [True, True, True]),
        ({"dones": "truncated"}, [False, False, False]),
        ({"dones": "limit", "max_episode_steps": 4}, [False, True, False]),
    ],
)
def test_the_answer_decides(tmp_path: Path, options: dict[str, object], terminated: list[bool]):
    data = open_dataset(done_log(tmp_path / "x.npz"), LoadOptions.model_validate(options))
    assert [episode.terminated for episode in data.episodes] == terminated
    assert [episode.truncated for episode in data.episodes] == [not ends for ends in terminated]
    assert data.episode_lengths.tolist() == [4, 3, 4]


def test_done_that_is_never_set_is_no_question(tmp_path: Path):
    path = done_log(tmp_path / "x.npz")
    path.unlink()
    path = save(path, done=np.zeros(11), terminals=None, timeouts=None)
    data = open_dataset(path)  # episodes end where successors break off
    assert data.episode_lengths.tolist() == [4, 3, 4]
    assert not any(episode.terminated for episode in data.episodes)


def test_done_beside_timeouts_asks_about_the_steps_with_both(tmp_path: Path):
    log = flat_log()
    path = save(tmp_path / "x.npz", dones=log["terminals"] | log["timeouts"], terminals=None)
    with pytest.raises(DataError, match="overlap=truncated"):
        open_dataset(path)
    data = open_dataset(path, LoadOptions(overlap="truncated"))
    assert [episode.terminated for episode in data.episodes] == [False, True, False]


def test_terminals_beside_done_say_nothing_new(tmp_path: Path):
    with pytest.raises(DataError, match="there are terminals and done"):
        open_dataset(save(tmp_path / "x.npz", done=flat_log()["terminals"]))


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_array_is_named_with_its_names(tmp_path: Path, key: str):
    with pytest.raises(DataError, match="the key is missing; present: ") as caught:
        open_dataset(save(tmp_path / "x.npz", **{key: None}))
    assert caught.value.field == key
    assert FLAT_NAMES[key][-1] in str(caught.value.remedy)


def test_rewards_may_be_absent_if_that_is_said(tmp_path: Path):
    data = open_dataset(save(tmp_path / "x.npz", rewards=None), LoadOptions(rewards="ignore"))
    assert not data.has_rewards
    assert data.episode_lengths.tolist() == [4, 3, 4]
    known = open_dataset(save(tmp_path / "y.npz"), LoadOptions(rewards="ignore"))
    assert known.content_hash == data.content_hash


def test_further_arrays_are_kept(tmp_path: Path):
    data = open_dataset(save(tmp_path / "x.npz", qpos=np.arange(11), config=np.zeros(3)))
    assert data.episodes[1].infos["qpos"].tolist() == [4, 5, 6]
    assert data.dropped == {"infos left out: other number of rows": 1}


def test_flags_of_episodes_belong_to_the_layout_with_lengths(tmp_path: Path):
    path = save(tmp_path / "x.npz", terminals=np.zeros(3))
    with pytest.raises(DataError, match=r"terminals has 3 flags for 11 actions") as caught:
        open_dataset(path)
    assert caught.value.field == "lengths"


def test_round_trip_keeps_what_the_layout_holds(tmp_path: Path):
    data = make_dataset((4, 3, 5), log_prob=True)
    back = FORMAT.read(FORMAT.write(data, tmp_path / "x.npz"))
    assert back.content_hash == data.content_hash
    assert (back.info, back.spec, back.dropped) == (data.info, data.spec, {})
