import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mbrl.core.errors import DataError
from mbrl.data.assemble import assemble
from mbrl.data.info import DatasetInfo
from mbrl.data.options import LoadOptions
from mbrl.data.raw import RawEpisode, RawLog
from tests.data.logs import make_raw


def make_log(*raws: RawEpisode, bounds: float | None = 1.0) -> RawLog:
    return RawLog(
        file=Path("log"),
        episodes=raws,
        info=DatasetInfo(name="log"),
        act_low=None if bounds is None else (-bounds,),
        act_high=None if bounds is None else (bounds,),
    )


def test_layout_differences_that_lose_nothing():
    raw = make_raw()
    column = dataclasses.replace(
        raw,
        rewards=raw.rewards[:, None],
        truncations=raw.truncations[:, None].astype(np.uint8),
        actions=raw.actions[:, 0].astype(np.float32),
    )
    options = LoadOptions()
    same = assemble(make_log(raw), options), assemble(make_log(column), options)
    assert same[0].content_hash == same[1].content_hash
    assert same[1].dropped == {}


def test_odd_episode_is_the_one_named():
    odd = dataclasses.replace(make_raw(name="odd"), observations=np.zeros((5, 3)))
    for order in ([odd, make_raw(), make_raw()], [make_raw(), make_raw(), odd]):
        with pytest.raises(DataError, match="3 dimensions, where the dataset has 2") as caught:
            assemble(make_log(*order), LoadOptions())
        assert caught.value.episode == "odd"


def test_overlap_is_an_error_unless_termination_may_win():
    raw = dataclasses.replace(make_raw(), terminations=make_raw().truncations)
    with pytest.raises(DataError, match="both terminated and truncated"):
        assemble(make_log(raw), LoadOptions())
    data = assemble(make_log(raw, make_raw()), LoadOptions(overlap="terminated"))
    assert [(e.terminated, e.truncated) for e in data.episodes] == [(True, False), (False, True)]
    assert data.dropped == {"overlapping flags: termination wins": 1}


def test_clipping_is_counted():
    actions = np.array([[0.5], [3.0], [-2.0], [1.0]])
    raw = dataclasses.replace(make_raw(), actions=actions)
    with pytest.raises(DataError, match="beyond"):
        assemble(make_log(raw), LoadOptions())
    data = assemble(make_log(raw), LoadOptions(actions="clip"))
    assert data.episodes[0].actions[:, 0].tolist() == [0.5, 1.0, -1.0, 1.0]
    assert data.dropped == {"actions clipped": 2}
    wider = assemble(make_log(raw), LoadOptions(action_low=(-4.0,), action_high=(4.0,)))
    assert wider.spec.act_high == (4.0,)
    assert wider.dropped == {}


def test_clipping_does_not_hide_infinite_actions():
    raw = dataclasses.replace(make_raw(), actions=np.array([[0.5], [np.inf], [0.0], [0.0]]))
    with pytest.raises(DataError, match="inf") as caught:
        assemble(make_log(raw), LoadOptions(actions="clip"))
    assert caught.value.row == 1


def test_bad_episodes_are_dropped_on_request_and_counted():
    bad = dataclasses.replace(make_raw(), rewards=np.full(4, np.nan))
    empty = make_raw(steps=0)
    data = assemble(make_log(make_raw(), bad, empty), LoadOptions(bad_episodes="drop"))
    assert len(data) == 1
    assert data.dropped == {"episodes dropped: bad rewards": 2}
    with pytest.raises(DataError, match=r"no usable episode \(episodes dropped: bad rewards: 1\)"):
        assemble(make_log(bad), LoadOptions(bad_episodes="drop"))


def test_missing_final_observation_of_a_truncated_episode():
    raw = dataclasses.replace(
        make_raw(4), observations=make_raw(4).observations[:4], timestamps=np.arange(4.0)
    )
    with pytest.raises(DataError, match="4 observations for 4 actions"):
        assemble(make_log(raw), LoadOptions())
    data = assemble(make_log(raw), LoadOptions(final_observation="repair"))
    episode = data.episodes[0]
    assert len(episode) == 3
    assert episode.observations[-1, 0] == 3
    assert (episode.truncated, episode.is_final_observation_known) == (True, True)
    assert data.dropped == {"rows dropped: no successor": 1}


def test_missing_final_observation_of_a_terminated_episode_keeps_its_reward():
    raw = make_raw(4)
    raw = dataclasses.replace(
        raw,
        observations=raw.observations[:4],
        terminations=raw.truncations,
        truncations=raw.terminations,
        rewards=np.array([0.0, 0.0, 0.0, 7.0]),
    )
    data = assemble(make_log(raw), LoadOptions(final_observation="repair"))
    assert data.episode_returns.tolist() == [7.0]
    assert not data.episodes[0].is_final_observation_known
    assert data.dropped == {"terminal successors unknown": 1}


def test_one_step_without_successor_leaves_nothing():
    raw = dataclasses.replace(make_raw(1), observations=make_raw(1).observations[:1])
    data = assemble(make_log(raw, make_raw()), LoadOptions(final_observation="repair"))
    assert len(data) == 1
    assert data.dropped == {"rows dropped: no successor": 1, "episodes dropped: no successor": 1}


def test_end_of_log_is_marked_and_counted():
    raw = dataclasses.replace(make_raw(), truncations=np.zeros(4, dtype=np.bool_))
    data = assemble(make_log(raw), LoadOptions())
    assert data.episodes[0].truncated
    assert data.dropped == {"ends of log marked as truncated": 1}


def test_bounds_from_the_data_are_noted():
    raw = dataclasses.replace(make_raw(), actions=np.array([[-3.0], [0.0], [2.0], [1.0]]))
    data = assemble(make_log(raw, bounds=None), LoadOptions())
    assert (data.spec.act_low, data.spec.act_high) == ((-3.0,), (2.0,))
    assert "range of the data" in data.info.provenance["action_bounds"]
    constant = dataclasses.replace(make_raw(), actions=np.full((4, 1), 2.0))
    spec = assemble(make_log(constant, bounds=None), LoadOptions()).spec
    assert spec.act_low[0] < 2.0 < spec.act_high[0]
    half_open = RawLog(
        file=Path("log"), episodes=(raw,), info=DatasetInfo(name="x"), act_low=(-5.0,), act_high=(np.inf,)
    )
    assert assemble(half_open, LoadOptions()).spec.act_high == (2.0,)


def test_wrong_number_of_bounds():
    with pytest.raises(DataError, match="2 action bounds for 1 action"):
        assemble(make_log(make_raw()), LoadOptions(action_low=(-1.0, -1.0), action_high=(1.0, 1.0)))


def test_behaviour_and_infos_can_be_left_out():
    raw = dataclasses.replace(make_raw(), behaviour_log_prob=np.full(5, np.nan), infos={"x": np.ones(4)})
    with pytest.raises(DataError, match="behaviour=ignore"):
        assemble(make_log(raw), LoadOptions())
    data = assemble(make_log(raw), LoadOptions(behaviour="ignore", infos="none"))
    assert data.episodes[0].behaviour_log_prob is None
    assert data.episodes[0].infos == {}


def test_padding_of_the_log_probability_is_cut():
    raw = dataclasses.replace(make_raw(), behaviour_log_prob=np.array([1.0, 2.0, 3.0, 4.0, np.nan]))
    assert assemble(make_log(raw), LoadOptions()).episodes[0].behaviour_log_prob.tolist() == [1, 2, 3, 4]


def test_no_vectors_at_all():
    raw = dataclasses.replace(make_raw(), observations=np.zeros((5, 2, 2)))
    with pytest.raises(DataError, match="no episode holds vectors") as caught:
        assemble(make_log(raw), LoadOptions())
    assert caught.value.field == "observations"
