import dataclasses
import doctest
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mbrl.data.dataset
from mbrl.core.errors import DataError
from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from tests.data.logs import make_dataset


def rows(lengths: tuple[int, ...] = (4, 3, 5)) -> dict[str, Any]:
    """The rows of the toy as a user holds them: arguments of `from_arrays` with successors."""
    flat = make_dataset(lengths).transitions()
    return {
        "observations": flat.observation,
        "actions": flat.action,
        "rewards": flat.reward,
        "terminations": flat.terminated,
        "truncations": flat.truncated,
        "next_observations": flat.next_observation,
    }


BOUNDS: dict[str, Any] = {"act_low": [-1.0], "act_high": [1.0]}


def test_arrays_with_successors_make_the_same_dataset():
    data = Dataset.from_arrays(**rows(), **BOUNDS, info=DatasetInfo(name="mine"))
    assert data.content_hash == make_dataset().content_hash
    assert data.info.name == "mine"
    assert data.dropped == {}


def test_lists_and_tensors_and_another_name_of_the_flag_will_do():
    given = rows()
    lists = {key: values.tolist() for key, values in given.items() if key != "truncations"}
    timeouts = torch.tensor(given["truncations"])
    data = Dataset.from_arrays(**lists, timeouts=timeouts, act_low=-1.0, act_high=1.0)
    assert data.content_hash == make_dataset().content_hash
    with pytest.raises(DataError, match="another name of truncations"):
        Dataset.from_arrays(**given, timeouts=timeouts)


def test_arrays_without_successors_lose_what_cannot_be_known():
    given = rows() | {"next_observations": None}
    data = Dataset.from_arrays(**given, **BOUNDS)
    assert data.episode_lengths.tolist() == [3, 3, 4]  # truncated episodes lose a step, terminated ones none
    assert data.dropped == {"rows dropped: no successor": 2, "terminal successors unknown": 1}


def test_a_time_limit_stands_for_truncations():
    given = rows((4, 4)) | {"truncations": None, "next_observations": None, "terminations": np.zeros(8)}
    with pytest.raises(DataError, match="neither truncations nor next_observations"):
        Dataset.from_arrays(**given, **BOUNDS)
    info = DatasetInfo(name="mine", max_episode_steps=4)
    assert Dataset.from_arrays(**given, **BOUNDS, info=info).episode_lengths.tolist() == [3, 3]


def test_further_arrays_are_kept():
    data = Dataset.from_arrays(
        **rows(), **BOUNDS, infos={"extra": np.arange(12)}, behaviour_log_prob=-np.arange(12.0)
    )
    assert data.episodes[1].infos["extra"].tolist() == [4, 5, 6]
    assert data.episodes[1].behaviour_log_prob is not None
    assert data.episodes[1].behaviour_log_prob.tolist() == [-4, -5, -6]


def changed(name: str, row: int, value: Any) -> dict[str, Any]:
    given = rows()
    values = np.asarray(given[name]).astype(np.result_type(np.asarray(given[name]), np.asarray(value)))
    values[row] = value
    return given | {name: values}


@pytest.mark.parametrize(
    ("given", "field", "row", "words"),
    [
        (changed("observations", 5, np.nan), "observations", 5, "not finite"),
        (changed("next_observations", 11, np.inf), "next_observations", 11, "not finite"),
        (changed("actions", 8, 3.0), "actions", 8, "beyond"),
        (changed("rewards", 4, np.nan), "rewards", 4, "not finite"),
        (changed("terminations", 3, 0.3), "terminations", 3, "neither 0 nor 1"),
        (changed("terminations", 3, np.nan), "terminations", 3, "neither 0 nor 1"),
        (changed("truncations", 2, 2), "truncations", 2, "neither 0 nor 1"),
        (rows() | {"terminations": ["False"] * 12}, "terminations", 0, "'False'"),
        (changed("truncations", 6, True), "truncations", 6, "both terminated and truncated"),
        (rows() | {"actions": rows()["actions"][:7]}, "actions", 7, "12 rows"),
        (rows() | {"rewards": []}, "rewards", None, "no rows"),
        (rows() | {"observations": [[0.0], [0.0, 1.0]]}, "observations", None, "no array of numbers"),
        (rows() | {"behaviour_log_prob": np.zeros(6)}, "behaviour_log_prob", 6, "12 rows"),
        (rows() | {"behaviour_log_prob": np.full(12, 1e6)}, "behaviour_log_prob", 0, "log-density 1e"),
    ],
)
def test_errors_name_the_argument_and_its_row(given: dict[str, Any], field: str, row: int | None, words: str):
    with pytest.raises(DataError, match=words) as caught:
        Dataset.from_arrays(**given, **BOUNDS)
    assert (caught.value.field, caught.value.row) == (field, row)
    assert caught.value.remedy


def test_bounds_are_both_or_neither_and_numbers():
    with pytest.raises(DataError, match="one of two") as caught:
        Dataset.from_arrays(**rows(), act_low=[-1.0])
    assert caught.value.field == "act_high"
    with pytest.raises(DataError, match="not numbers") as caught:
        Dataset.from_arrays(**rows(), act_low=["a"], act_high=["b"])
    assert caught.value.field == "act_low"
    wide = Dataset.from_arrays(**rows())
    assert "range of the data" in wide.info.provenance["action_bounds"]


def test_episodes_as_objects_and_as_mappings():
    data = make_dataset((4, 3, 5), log_prob=True, times=True, infos=True)
    plain = [
        {
            "observations": e.observations,
            "actions": e.actions,
            "rewards": e.rewards.tolist(),
            "terminated": e.terminated,
            "truncated": e.truncated,
            "behaviour_log_prob": e.behaviour_log_prob,
            "timestamps": e.timestamps,
            "infos": e.infos,
        }
        for e in data.episodes
    ]
    for given in (list(data.episodes), plain):
        made = Dataset.from_episodes(given, **BOUNDS)
        assert made.content_hash == data.content_hash
        assert made.episodes[2].timestamps is not None
        assert made.episodes[2].infos["extra"].tolist() == data.episodes[2].infos["extra"].tolist()
    flags = [entry | {"terminations": np.zeros(len(entry["rewards"]))} for entry in plain]
    assert not any(e.terminated for e in Dataset.from_episodes(flags, **BOUNDS).episodes)


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"rewards": None}, "rewards", "not numeric|missing"),
        ({"terminated": "False"}, "terminated", "neither true nor false"),
        ({"terminated": np.nan}, "terminated", "neither true nor false"),
        ({"observations": np.zeros((3, 2))}, "observations", "3 observations for 3 actions"),
        ({"observations": np.zeros((4, 2, 16, 16), np.uint8)}, "observations", "images"),
    ],
)
def test_errors_name_the_episode(change: dict[str, Any], field: str, words: str):
    episode = make_dataset((3, 3)).episodes[0]
    sound = {name: getattr(episode, name) for name in ("observations", "actions", "rewards")}
    with pytest.raises(DataError, match=words) as caught:
        Dataset.from_episodes([sound, sound, sound | change], **BOUNDS)
    assert (caught.value.field, caught.value.episode) == (field, 2 if "terminated" in change else "2")
    assert caught.value.remedy


def test_a_missing_array_is_named():
    with pytest.raises(DataError, match="present: observations") as caught:
        Dataset.from_episodes([{"observations": np.zeros((3, 1)), "rewards": np.zeros(2)}])
    assert (caught.value.episode, caught.value.field) == (0, "actions")
    with pytest.raises(DataError, match="no episodes"):
        Dataset.from_episodes([])


def stored(envs: int = 2, size: int = 40, *, pos: int | None = None, full: bool = False) -> SimpleNamespace:
    """A buffer like that of Stable-Baselines3: environment e counts 1000 e, 1000 e + 1, ...; 10 steps an
    episode, every second of which terminates."""
    clock = np.arange(size)[:, None] + np.zeros((1, envs))
    counter = clock + 1000 * np.arange(envs)
    ends = clock % 10 == 9
    timeouts = ends & (clock // 10 % 2 == 0)
    order = (np.arange(size) - (pos or 0)) % size if full else np.arange(size)
    return SimpleNamespace(
        observations=np.stack([counter, -counter], axis=-1)[order].astype(np.float32),
        next_observations=np.stack([counter + 1, -counter - 1], axis=-1)[order].astype(np.float32),
        actions=np.sin(counter)[order, :, None].astype(np.float32),
        rewards=counter[order].astype(np.float32),
        dones=ends[order].astype(np.float32),
        timeouts=timeouts[order].astype(np.float32),
        pos=size if pos is None else pos,
        full=full,
        action_space=SimpleNamespace(low=np.array([0.0]), high=np.array([4.0])),
        handle_timeout_termination=True,
    )


def test_a_buffer_is_read_environment_by_environment():
    data = Dataset.from_gymnasium_buffer(stored())
    assert data.episode_lengths.tolist() == [10] * 8
    assert [e.terminated for e in data.episodes] == [False, True] * 4
    flat = data.transitions()
    assert np.array_equal(flat.next_observation[:, 0], flat.observation[:, 0] + 1)
    assert data.episodes[4].observations[0, 0] == 1000
    assert (data.spec.act_low, data.spec.act_high) == ((0.0,), (4.0,))
    np.testing.assert_allclose(flat.action[:40, 0], 2.0 * (np.sin(np.arange(40)) + 1.0), atol=1e-6)
    raw = Dataset.from_gymnasium_buffer(stored(), scaled_actions=False, act_low=-1.0, act_high=1.0)
    np.testing.assert_allclose(raw.transitions().action[:40, 0], np.sin(np.arange(40)), atol=1e-6)


@pytest.mark.parametrize("pos", [0, 5, 33])
def test_a_full_ring_is_read_from_its_oldest_row(pos: int):
    data = Dataset.from_gymnasium_buffer(stored(pos=pos, full=True))
    assert data.content_hash == Dataset.from_gymnasium_buffer(stored()).content_hash
    assert data.dropped == {"episodes whose beginning was overwritten": 2}


def test_a_ring_that_is_not_full_ends_where_it_was_written():
    data = Dataset.from_gymnasium_buffer(stored(pos=25))
    assert data.episode_lengths.tolist() == [10, 10, 5] * 2
    assert data.episodes[2].truncated


def test_a_buffer_without_time_outs_needs_the_time_limit():
    buffer = stored()
    buffer.handle_timeout_termination, buffer.timeouts = False, np.zeros((40, 2), np.float32)
    with pytest.raises(DataError, match="handle_timeout_termination"):
        Dataset.from_gymnasium_buffer(buffer)
    data = Dataset.from_gymnasium_buffer(buffer, info=DatasetInfo(name="b", max_episode_steps=10))
    assert not any(e.terminated for e in data.episodes)
    shorter = Dataset.from_gymnasium_buffer(buffer, options=LoadOptions(max_episode_steps=11))
    assert all(e.terminated for e in shorter.episodes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"next_observations": None}, "optimize_memory_usage=False"),
        ({"pos": 0}, "empty"),
        ({"dones": np.full((40, 2), 0.3)}, "neither 0 nor 1"),
        ({"rewards": np.full((40, 2), np.nan)}, "not finite"),
        ({"observations": {"a": np.zeros((40, 2, 1))}}, "dictionaries"),
        ({"action_space": SimpleNamespace(n=3)}, "none of the 3 choices"),
    ],
)
def test_buffers_that_cannot_be_read(change: dict[str, Any], words: str):
    buffer = stored()
    for name, value in change.items():
        setattr(buffer, name, value)
    with pytest.raises(DataError, match=words):
        Dataset.from_gymnasium_buffer(buffer)


def transitions() -> list[tuple[Any, ...]]:
    given = rows()
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
    return [tuple(given[name][k] for name in names) for k in range(12)]


def test_lists_of_transitions():
    made = Dataset.from_gymnasium_buffer(transitions(), **BOUNDS)
    assert made.content_hash == make_dataset().content_hash
    names = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    named = [dict(zip(names, row, strict=True)) for row in transitions()]
    assert Dataset.from_gymnasium_buffer(named, **BOUNDS).content_hash == made.content_hash


@pytest.mark.parametrize(
    ("given", "field", "row", "words"),
    [
        ([row[:5] for row in transitions()], "buffer", 0, "terminated, truncated"),
        ([*transitions()[:3], {"observation": 1}], "buffer", 3, "needs observation"),
        ([*transitions()[:3], (np.zeros(3), *transitions()[3][1:])], "observations", 3, r"shape \(3,\)"),
        ([], "buffer", None, "no transitions"),
        (42, "buffer", None, "int is neither"),
    ],
)
def test_transitions_that_cannot_be_read(given: Any, field: str, row: int | None, words: str):
    with pytest.raises(DataError, match=words) as caught:
        Dataset.from_gymnasium_buffer(given)
    assert (caught.value.field, caught.value.row) == (field, row)


def test_reprs_are_short():
    data = make_dataset((400, 300))
    assert repr(data) == (
        "Dataset('toy', 2 episodes (1 terminated), 700 transitions, observations of 2, actions of 1)"
    )
    assert repr(data.episodes[1]).startswith("Episode(300 steps, observations [301, 2], actions [300, 1], ")
    assert len(repr(data.transitions())) < 100
    assert "Episode" in repr(dataclasses.replace(data.episodes[0]))
    assert isinstance(data.episodes[0], Episode)


def test_the_examples_in_docstrings_run():
    failed, tried = doctest.testmod(mbrl.data.dataset)
    assert failed == 0
    assert tried > 0
