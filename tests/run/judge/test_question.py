import dataclasses

import pytest
import torch

from mbrl.core.errors import EstimandError
from mbrl.core.estimates import Estimand
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.splits import cut
from mbrl.envs.specs import load_task
from mbrl.run.judge.ope import OPESettings
from mbrl.run.judge.question import asked_estimand, asked_horizon, question_words
from mbrl.run.judge.selection import SelectRule
from tests.off_policy.lqg import LinearPolicy, scalar_task


def log(**info) -> Dataset:
    """Six episodes of four steps, one of which is cut after two."""
    data = scalar_task().simulate(LinearPolicy(torch.tensor([[0.4]]), 8.0), 6, 4, 0)
    episodes = (*data.episodes[:5], dataclasses.replace(cut(data.episodes[5], 0, 2), whole=None))
    return dataclasses.replace(data, episodes=episodes, info=DatasetInfo(name="log", **info))


def test_the_question_is_the_return_of_the_whole_task():
    assert asked_estimand(log()) == Estimand(1.0, 4)
    assert OPESettings().estimand(log()) == Estimand(1.0, 4)
    assert OPESettings(discount=0.9, horizon=3).estimand(log()) == Estimand(0.9, 3)
    assert SelectRule().discount == 1.0
    assert question_words(asked_horizon(log())) == (
        "Asked: mean return of an episode of at most 4 steps (the length at which most truncated episodes of "
        "the log end). 1 of 6 logged episodes was cut sooner."
    )
    assert question_words(asked_horizon(log(), 2), discount=0.9) == (
        "Asked: mean return of an episode of at most 2 steps, discounted by 0.9 a step (as asked)."
    )


def test_a_log_that_states_no_limit_has_that_of_the_task_it_names():
    assert asked_horizon(log(task="hopper")).steps == 1000
    assert asked_horizon(log(env_id="Hopper-v5")).source == "task"
    assert asked_horizon(log(env_id="Hopper-v5", max_episode_steps=4)).source == "log"
    assert asked_horizon(log(task="somebodys_own")).source == "truncations"
    hopper = load_task("hopper")
    assert asked_horizon(log(max_episode_steps=4), task=hopper).steps == 1000


def test_more_steps_than_an_episode_has_are_refused():
    with pytest.raises(EstimandError, match=r"at most 4 .*Remedy: a horizon of at most 4"):
        asked_horizon(log(), 5)
    ended = tuple(dataclasses.replace(e, terminated=True, truncated=False) for e in log().episodes)
    free = dataclasses.replace(log(), episodes=ended)
    assert asked_horizon(free, 5).source == "asked"  # every episode ended by itself: nothing would follow
    cuts = (1, 2, 3, 4)
    lone = tuple(dataclasses.replace(cut(log().episodes[0], 0, stop), whole=None) for stop in cuts)
    assert asked_horizon(dataclasses.replace(log(), episodes=lone)).source == "longest"
    with pytest.raises(EstimandError, match="at most 4"):
        asked_horizon(dataclasses.replace(log(), episodes=lone), 5)
