import dataclasses

import numpy as np
import pytest

from mbrl.core.types import Episode
from mbrl.data.dataset import Dataset
from mbrl.data.inspection.report import inspect_dataset
from tests.data.inspection.test_stats import walk
from tests.data.logs import SPEC, make_dataset, make_episode


def texts(data: Dataset, severity: str = "warning") -> str:
    return " | ".join(f.text for f in inspect_dataset(data).findings if f.severity == severity)


def lengths(*steps: int, terminated: bool = True, limit: int | None = None) -> Dataset:
    data = make_dataset((3, 3))
    episodes = tuple(
        dataclasses.replace(make_episode(index, count), terminated=terminated, truncated=not terminated)
        for index, count in enumerate(steps)
    )
    info = dataclasses.replace(data.info, max_episode_steps=limit)
    return dataclasses.replace(data, episodes=episodes, info=info)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lengths(*[9] * 5), "every episode terminates at exactly step 9"),
        (lengths(*[30] * 4, 7, 12), "4 of 6 episodes terminates at exactly step 30"),
        (lengths(5, 5, 5, 2, 3, limit=5), "3 of 5 episodes terminates at exactly step 5"),
    ],
)
def test_a_time_limit_stored_as_termination(data: Dataset, words: str):
    assert words in texts(data)
    assert "looks like a time limit stored as termination" in texts(data)


@pytest.mark.parametrize(
    "data",
    [
        lengths(*[9] * 5, terminated=False),  # cut, as it should be
        lengths(3, 5, 7, 9, 11, 13),  # ends at different steps
        lengths(*[1] * 9),  # one-step episodes are a bandit's
        lengths(9, 9),  # two are a coincidence
        lengths(5, 5, 5, 2, 3),  # short episodes often agree
    ],
)
def test_ends_that_are_no_time_limit(data: Dataset):
    assert "time limit" not in texts(data)


def test_outlying_rewards_are_named_with_episode_row_and_factor():
    data = walk()
    rewards = data.episodes[1].rewards.copy()
    rewards[33] = 1e12
    odd = dataclasses.replace(data.episodes[1], rewards=rewards)
    found = texts(dataclasses.replace(data, episodes=(data.episodes[0], odd, data.episodes[2])))
    assert "The reward 1e+12 in episode 1, row 33, is" in found
    assert "times farther from the median than all others" in found


def with_log_prob(values: np.ndarray) -> Dataset:
    data = walk(episodes=1)
    episode = dataclasses.replace(data.episodes[0], behaviour_log_prob=values.astype(np.float32))
    return dataclasses.replace(data, episodes=(episode,))


def test_log_densities_that_no_policy_has():
    rng = np.random.default_rng(0)
    usual = rng.normal(-1.0, 1.0, 400)
    assert "log" not in texts(with_log_prob(usual))
    few = usual.copy()
    few[[3, 5]] = -1e5
    assert "2 logged actions have a log-density below -200" in texts(with_log_prob(few))
    assert "as probabilities do" in texts(with_log_prob(rng.uniform(0, 1, 400)))


def with_times(times: np.ndarray, stated: float | None = None) -> Dataset:
    data = walk(episodes=1)
    episode = dataclasses.replace(data.episodes[0], timestamps=times)
    info = dataclasses.replace(data.info, time_step=stated)
    return dataclasses.replace(data, episodes=(episode,), info=info)


def test_clocks_that_jump_or_disagree():
    times = 0.1 * np.arange(401)
    assert "time stamps" not in texts(with_times(times, 0.1))
    assert "Time stamps are 0.1 s apart in the median, and the log states 0.5 s" in texts(
        with_times(times, 0.5)
    )
    times = times.copy()
    times[200:] += 1000.0
    found = texts(with_times(times))
    assert "1 pauses between time stamps" in found
    assert "1000.1 s, follows row 199 of episode 0" in found


def test_a_machine_that_stands_is_no_copy():
    data = walk(steps=100, episodes=3)
    still = tuple(
        dataclasses.replace(
            e,
            observations=np.repeat(e.observations[:1], 101, axis=0),
            actions=e.actions * 0,
            rewards=e.rewards * 0,
        )
        for e in data.episodes
    )
    mixed = dataclasses.replace(data, episodes=(*data.episodes, *still))
    assert "repeat" not in texts(mixed)
    assert "297 transitions equal the one before them" in texts(mixed, "note")
    assert "repeat stretches of an earlier episode" in texts(data.select([0, 1, 2, 0]))


def test_channels_that_hardly_change_are_named():
    data = walk()
    rng = np.random.default_rng(0)
    episodes = []
    for episode in data.episodes:
        obs = episode.observations.copy()
        obs[:, 1] = 0.5 + 1e-6 * rng.normal(size=len(obs))
        episodes.append(dataclasses.replace(episode, observations=obs))
    found = texts(dataclasses.replace(data, episodes=tuple(episodes)), "note")
    assert "Observation dimensions that hardly change: 1" in found


def test_a_command_of_few_values_is_mentioned_and_no_more():
    steps = 200
    episode = Episode(
        observations=np.cumsum(np.ones((steps + 1, 2), np.float32), axis=0),
        actions=np.where(np.arange(steps) % 3, 1.0, -1.0)[:, None].astype(np.float32),
        rewards=np.arange(steps, dtype=np.float32),
        terminated=False,
        truncated=True,
    )
    data = Dataset((episode, episode), SPEC, make_dataset().info)
    assert "takes the values -1, 1 alone" in texts(data, "note")


def test_pinned_actions_are_said():
    data = walk()
    info = dataclasses.replace(data.info, provenance={"pinned_actions": "dimension 1 to 150: it never moves"})
    assert "Assumed pinned actions: dimension 1 to 150" in texts(dataclasses.replace(data, info=info))
