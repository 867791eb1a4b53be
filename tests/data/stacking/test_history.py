import dataclasses
import json

import numpy as np
import pytest
import torch

from mbrl.core.errors import DataError
from mbrl.core.history import History
from mbrl.core.types import SpaceSpec
from mbrl.data.formats.base import FORMATS
from mbrl.data.info import DatasetInfo, info_problems
from mbrl.data.open import open_dataset
from mbrl.data.stacking.choose import choose_history, history_errors
from mbrl.data.stacking.history import check_history, with_history
from tests.dynamics.systems import MATRIX, make_dataset


def delayed(delay, *, episodes=20, steps=60, noise=0.0, seed=0):
    """A linear machine whose commands act `delay` steps later; before an episode they were 0."""
    rng = np.random.default_rng(seed)
    dataset = make_dataset(episodes=episodes, steps=steps)
    made = []
    for episode in dataset.episodes:
        actions = rng.uniform(-1, 1, (steps, 1))
        under_way = np.concatenate((np.zeros((delay, 1)), actions))
        obs = [rng.normal(size=2)]
        for t in range(steps):
            obs.append(MATRIX @ obs[-1] + [0.1, 0.6] * under_way[t] + noise * rng.standard_normal(2))
        made.append(
            dataclasses.replace(
                episode, observations=np.array(obs, np.float32), actions=actions.astype(np.float32)
            )
        )
    return dataclasses.replace(dataset, episodes=tuple(made))


def test_an_observation_is_its_frames_and_the_actions_between_them():
    dataset = make_dataset(episodes=2, steps=6)
    stacked = with_history(dataset, 3)
    logged, found = dataset.episodes[1], stacked.episodes[1].observations
    assert stacked.spec.obs_dim == 3 * 2 + 2 * 1
    assert found.shape == (7, 8)
    obs, act = logged.observations, logged.actions
    assert found[5].tolist() == [*obs[5], *obs[4], *obs[3], *act[4], *act[3]]
    assert found[1].tolist() == [*obs[1], *obs[0], *obs[0], *act[0], 0.0]  # the first frame, and at rest
    assert found[0].tolist() == [*obs[0], *obs[0], *obs[0], 0.0, 0.0]
    names = ("obs_0", "obs_1", "obs_0_lag1", "obs_1_lag1", "obs_0_lag2", "obs_1_lag2")
    assert stacked.obs_names == (*names, "act_0_lag1", "act_0_lag2")
    assert stacked.info.history == History(3, 2)
    assert stacked.info.derived_from == dataset.content_hash
    assert stacked.content_hash != dataset.content_hash
    assert with_history(dataset, 1) is dataset


def test_what_rests_before_an_episode_lies_in_the_action_box():
    dataset = make_dataset(episodes=1, steps=3)
    spec = SpaceSpec(obs_dim=2, act_dim=1, act_low=(0.5,), act_high=(2.0,))
    actions = np.full((3, 1), 1.0, np.float32)
    episode = dataclasses.replace(dataset.episodes[0], actions=actions)
    found = with_history(dataclasses.replace(dataset, spec=spec, episodes=(episode,)), 2)
    assert found.episodes[0].observations[:2, 4].tolist() == [0.5, 1.0]


def test_what_is_moved_up_is_the_next_observation_but_for_its_newest_frame():
    for length in (2, 4):
        stacked = with_history(make_dataset(episodes=1, steps=9), length)
        episode, history = stacked.episodes[0], stacked.info.history
        moved = history.moved(torch.tensor(episode.observations[:-1]), torch.tensor(episode.actions))
        assert np.array_equal(moved.numpy(), episode.observations[1:, 2:])
        check_history(stacked)
    frames = History(2)
    assert frames.moved(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.zeros(1, 1)).tolist() == [[1.0, 2.0]]


def test_sizes_that_fit_no_history_are_refused():
    for bad in ((0, 1), (1, 0), (2, -1)):
        with pytest.raises(ValueError, match="is none"):
            History(*bad)
    assert History(2, 1).frame_dim(7, 1) == 3
    with pytest.raises(ValueError, match="8 numbers are not 2 frames and 1 actions of 1"):
        History(2, 1).frame_dim(8, 1)
    assert History(3, 2).act_dim(3 * 4 + 3 * 2, 4) == 2
    with pytest.raises(ValueError, match="are not 3 frames of 4"):
        History(3, 2).act_dim(13, 4)
    spec = SpaceSpec(obs_dim=8, act_dim=1, act_low=(-1.0,), act_high=(1.0,))
    (problem,) = info_problems(DatasetInfo(name="x", history=History(2, 1)), spec)
    assert "history" in str(problem)
    with pytest.raises(DataError, match="hold 2 frames already"):
        with_history(with_history(make_dataset(episodes=1), 2), 2)
    with pytest.raises(DataError, match="a history of 0 frames"):
        with_history(make_dataset(episodes=1), 0)


def test_a_history_that_is_none_is_named_by_episode_and_row():
    stacked = with_history(make_dataset(episodes=2, steps=6), 2)
    wrong = stacked.episodes[1].observations.copy()
    wrong[4, 2] += 1.0
    episodes = (stacked.episodes[0], dataclasses.replace(stacked.episodes[1], observations=wrong))
    with pytest.raises(DataError, match="its older part is not") as caught:
        check_history(dataclasses.replace(stacked, episodes=episodes))
    assert (caught.value.episode, caught.value.row) == (1, 4)


def test_the_description_survives_json():
    info = DatasetInfo(name="x", history=History(5, 4))
    assert DatasetInfo.from_json(info.to_json(), file="f") == info
    assert DatasetInfo.from_json(DatasetInfo(name="x").to_json(), file="f").history is None
    with pytest.raises(DataError, match="is none"):
        DatasetInfo.from_json(info.to_json().replace('"frames":5', '"frames":0'), file="f")


@pytest.mark.parametrize(("name", "file"), [("minari", "log"), ("npz", "log.npz"), ("d4rl", "log.hdf5")])
def test_every_format_that_is_written_keeps_it(tmp_path, name, file):
    stacked = with_history(make_dataset(episodes=2, steps=6), 3)
    FORMATS.get(name).write(stacked, tmp_path / file)
    found = open_dataset(tmp_path / file)
    assert found.info.history == History(3, 2)
    assert found.content_hash == stacked.content_hash
    check_history(found)


def test_a_history_that_is_none_in_a_file_is_named(tmp_path):
    FORMATS.get("minari").write(with_history(make_dataset(episodes=2, steps=6), 3), tmp_path / "log")
    file = tmp_path / "log" / "data" / "metadata.json"
    metadata = json.loads(file.read_text())
    for frames in (0, 7):
        wrong = metadata | {"history": json.dumps({"frames": frames, "actions": 0})}
        file.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match="history"):
            open_dataset(tmp_path / "log")


@pytest.mark.parametrize("delay", [0, 2, 3])
def test_held_out_episodes_choose_as_many_frames_as_the_delay_asks_for(delay):
    dataset = delayed(delay, noise=0.01)
    assert choose_history(dataset) == delay + 1
    errors = history_errors(dataset, (delay + 1, 10))
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
    if delay > 0:
        assert history_errors(dataset, (1,))[0] > 5 * errors[0]
