import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mbrl.core.errors import DataError
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from tests.data.logs import SPEC, make_dataset, make_episode

LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=12)


def test_transitions_of_a_hand_made_log():
    rows = make_dataset((2, 1)).transitions()
    assert rows.observation[:, 0].tolist() == [0, 1, 100]
    assert rows.next_observation[:, 0].tolist() == [1, 2, 101]
    assert rows.terminated.tolist() == [False, False, True]
    assert rows.truncated.tolist() == [False, True, False]
    assert rows.episode.tolist() == [0, 0, 1]
    assert rows.step.tolist() == [0, 1, 0]
    assert rows.has_next_action.tolist() == [True, False, False]
    assert rows.reward.tolist() == [0, 0, 1]


@given(LENGTHS)
def test_successor_and_next_action_stay_within_their_episode(lengths: list[int]):
    """Neither the successor at a time-out nor a' may come from the next episode (a rolled array would)."""
    rows = make_dataset(lengths).transitions()
    assert np.array_equal(rows.next_observation[:, 0], rows.observation[:, 0] + 1)
    assert np.array_equal(rows.next_observation[:, 0] - 1 - rows.step, 100 * rows.episode)
    has = rows.has_next_action
    assert np.array_equal(rows.next_action[has, 0], np.sin(rows.observation[has, 0] + 1))
    assert np.all(rows.next_action[~has] == 0)
    assert int((~has).sum()) == len(lengths)
    assert np.array_equal(~has, rows.terminated | rows.truncated)


def test_unknown_successor_is_kept_for_values_and_left_out_for_dynamics():
    last = make_episode(1, 3, terminated=True, is_final_observation_known=False)
    data = Dataset(episodes=(make_episode(0, 2), last), spec=SPEC, info=DatasetInfo(name="toy"))
    rows = data.transitions()
    assert rows.is_successor_known.tolist() == [True, True, True, True, False]
    assert len(rows.successors_known()) == 4
    assert not rows.successors_known().terminated.any()
    assert rows.to_batch().terminated.tolist() == [False, False, False, False, True]


def test_batch_keeps_truncation_out():
    """A time-out must be bootstrapped through: it never shows in the batch that learners see."""
    batch = make_dataset((3, 2)).transitions().to_batch()
    assert batch.terminated.tolist() == [False, False, False, False, True]
    assert batch.reward.dtype == torch.float32
    assert not batch.from_model.any()
    assert batch.has_next_action.tolist() == [True, True, False, True, False]


def test_truncation_bootstraps_and_termination_does_not():
    """Reward 1 for ever is worth 1 / (1 - discount) under a time-out, a finite sum under a termination."""
    discount, worth = 0.9, {}
    for terminated in (False, True):
        data = Dataset(
            episodes=(make_episode(0, 3, terminated=terminated, reward=1.0),),
            spec=SPEC,
            info=DatasetInfo(name="toy"),
        )
        batch = data.transitions().to_batch()
        values = torch.zeros(4)  # of states 0 to 2 and of the final one, worth as much as the one before
        for _ in range(500):
            bootstrap = (~batch.terminated).float() * values[1:]
            values = torch.cat([batch.reward + discount * bootstrap, values[2:3]])
        worth[terminated] = float(values[0])
    assert worth[False] == pytest.approx(1 / (1 - discount), rel=1e-4)
    assert worth[True] == pytest.approx(1 + discount + discount**2, rel=1e-6)


def test_arrays_are_read_only():
    data = make_dataset(log_prob=True, times=True, infos=True)
    rows = data.transitions()
    arrays = [getattr(rows, field.name) for field in dataclasses.fields(rows)]
    arrays = [array for array in arrays if array is not None]  # no masks
    arrays += [data.episodes[0].observations, data.episodes[0].infos["extra"]]
    assert not any(array.flags.writeable for array in arrays)
    batch = rows.to_batch()
    batch.reward.add_(1.0)
    assert data.transitions().reward.tolist() == make_dataset().transitions().reward.tolist()


def test_hash_sees_every_number_flag_and_bound_but_no_description():
    data = make_dataset(log_prob=True)
    first = data.episodes[0]

    def variant(**changes: object) -> str:
        changed = dataclasses.replace(first, **changes)
        return dataclasses.replace(data, episodes=(changed, *data.episodes[1:])).content_hash

    def bumped(array: np.ndarray) -> np.ndarray:
        copy = array.copy()
        copy.flat[-1] += 1e-3
        return copy

    others = {
        variant(observations=bumped(first.observations)),
        variant(actions=bumped(first.actions)),
        variant(rewards=bumped(first.rewards)),
        variant(behaviour_log_prob=bumped(first.behaviour_log_prob)),
        variant(behaviour_log_prob=None),
        variant(terminated=True, truncated=False),
        dataclasses.replace(data, spec=dataclasses.replace(SPEC, act_high=(1.5,))).content_hash,
        data.select([1, 0, 2]).content_hash,
    }
    assert len(others) == 8
    assert data.content_hash not in others
    renamed = dataclasses.replace(data, info=DatasetInfo(name="other"), dropped={"x": 1})
    assert renamed.content_hash == data.content_hash
    assert variant(infos={"a": np.zeros(1)}, timestamps=None) == data.content_hash


def test_select_keeps_whole_episodes_in_order():
    """Selecting the best episodes gives whole episodes (no segment may drift across episodes)."""
    data = make_dataset((4, 3, 5, 2))
    best = data.select(np.argsort(-data.episode_returns)[:2])  # returns are 0, 3, 10, 6
    assert best.episodes == (data.episodes[2], data.episodes[3])
    assert best.episode_lengths.tolist() == [5, 2]
    rows = best.transitions()
    assert rows.observation[:, 0].tolist() == [200, 201, 202, 203, 204, 300, 301]
    assert np.flatnonzero(rows.terminated | rows.truncated).tolist() == [4, 6]


def test_returns_are_summed_in_float64():
    episode = dataclasses.replace(make_episode(0, 3), rewards=np.array([1e8, 1.0, -1e8], dtype=np.float32))
    data = Dataset(episodes=(episode,), spec=SPEC, info=DatasetInfo(name="toy"))
    assert data.episode_returns.tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"terminated": True}, "both terminated and truncated"),
        ({"truncated": False}, "ends without a flag"),
        ({"is_final_observation_known": False}, "successor is unknown"),
        ({"observations": np.zeros((5, 2), np.float32)}, "5 observations for 5 actions"),
        ({"observations": np.full((6, 2), np.nan, np.float32)}, "not finite"),
        ({"actions": np.full((5, 1), 2.0, np.float32)}, "beyond"),
        ({"actions": np.zeros((5, 3), np.float32)}, "3 dimensions"),
        ({"rewards": np.zeros(0, np.float32)}, "no steps"),
    ],
)
def test_construction_refuses_what_makes_training_wrong(changes: dict[str, object], words: str):
    episode = dataclasses.replace(make_episode(0, 5), **changes)
    with pytest.raises(DataError, match=words) as caught:
        Dataset(episodes=(make_episode(1), episode), spec=SPEC, info=DatasetInfo(name="toy"))
    assert caught.value.episode == "1"
    assert caught.value.remedy


def test_no_episodes():
    with pytest.raises(DataError, match="no episodes"):
        Dataset(episodes=(), spec=SPEC, info=DatasetInfo(name="toy"))
