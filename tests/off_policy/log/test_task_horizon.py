import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.splits import cut
from mbrl.envs.specs import load_task
from mbrl.off_policy.log.task_horizon import task_horizon


def episode(steps: int, *, terminated: bool = False) -> Episode:
    return Episode(
        np.zeros((steps + 1, 1), np.float32),
        np.zeros((steps, 1), np.float32),
        np.ones(steps, np.float32),
        terminated=terminated,
        truncated=not terminated,
    )


def log_of(open_ends: list[int], ended: Sequence[int] = (), *, limit: int | None = None) -> Dataset:
    episodes = [*map(episode, open_ends), *(episode(steps, terminated=True) for steps in ended)]
    info = DatasetInfo(name="log", max_episode_steps=limit)
    return Dataset(tuple(episodes), SpaceSpec(1, 1, (-1.0,), (1.0,)), info)


def test_a_stated_limit_is_the_horizon_whatever_one_cut_does():
    # hopper/medium-replay: 16 time-outs at 1,000, four cuts by the ends of parts, the rest falls.
    found = task_horizon(log_of([8, 119, 257, 268, *[1000] * 16], [20, 900, 1000], limit=1000))
    assert (found.steps, found.source) == (1000, "log")
    assert found.censored.tolist() == [True] * 4 + [False] * 19
    assert found.words == "mean return of an episode of at most 1,000 steps"
    assert found.source_words == "the time limit that the log states"
    assert found.estimand() == Estimand(1.0, 1000)
    assert found.estimand(0.99) == Estimand(0.99, 1000)


def test_the_given_task_comes_before_what_the_log_states_and_what_is_asked_before_both():
    log = log_of([200, 200], limit=200)
    hopper = load_task("hopper")
    found = task_horizon(log, hopper)
    assert (found.steps, found.source) == (1000, "task")
    assert found.censored.all()
    found = task_horizon(log, hopper, steps=50)
    assert (found.steps, found.source) == (50, "asked")
    assert not found.censored.any()
    unlimited = hopper.model_copy(update={"max_episode_steps": None})
    assert task_horizon(log, unlimited).source == "log"


@pytest.mark.parametrize(
    ("open_ends", "ended", "steps", "source"),
    [
        ([8, 300, 300, 300], [20, 300], 300, "truncations"),
        ([8, 8, 200, 300, 300, 300], [], 300, "longest"),  # half of them are not most
        ([8, 300, 300], [310], 310, "longest"),  # one went on for longer: 300 is no limit
        ([8, 8, 8], [134], 134, "longest"),
        ([8], [134], 134, "longest"),
        ([300], [20], 300, "longest"),  # one episode shows no limit
        ([], [20, 875], 875, "longest"),
        ([999, 1000, 1001, 1000, 8], [500], 999, "truncations"),  # a clock that is not exact
        ([991, 1000, 1000, 1001, 1001, 1002], [], 1000, "truncations"),
        ([999, *[1000] * 16], [], 1000, "truncations"),  # an exact length comes first
        ([50, 60, 70], [], 70, "longest"),
    ],
)
def test_without_a_statement_the_truncations_tell(open_ends, ended, steps, source):
    found = task_horizon(log_of(open_ends, ended))
    assert (found.steps, found.source) == (steps, source)
    assert found.censored.tolist() == [length < steps for length in open_ends] + [False] * len(ended)


def test_blocks_of_an_episode_are_parts_of_it():
    log = log_of([200])
    blocks = tuple(cut(log.episodes[0], start, stop) for start, stop in ((0, 90), (110, 200)))
    found = task_horizon(dataclasses.replace(log, episodes=blocks))
    assert (found.steps, found.source) == (200, "longest")
    assert found.censored.tolist() == [True, False]


def test_a_horizon_has_a_step():
    with pytest.raises(EstimandError, match="at least one step"):
        task_horizon(log_of([5]), steps=0)


def test_the_censored_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        task_horizon(log_of([5, 9])).censored[0] = False
