import pytest
import torch

from mbrl.algorithms.base import RecipeContext
from mbrl.algorithms.online import Online, OnlineConfig
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import load_task
from mbrl.nets.normaliser import Normaliser

SMALL = {"refresh_interval": 10, "refresh_steps": 50, "warmup_steps": 30, "updates": 60}


def build(task_name: str = "pendulum", **changes):
    task = load_task(task_name)
    learner = {"name": "sac", "hidden": [8], "normalise_observations": False}
    config = OnlineConfig.model_validate({"learner": learner, **SMALL, **changes})
    return Online.build(config, RecipeContext(task.space, Normaliser.identity(task.obs_dim), task=task))


def push(training, step: int, seed: int = 0):
    rng = RngStreams(seed)
    policy = training.learner.policy(training.learner.init(rng.at("init")))
    return training.refresh(policy, step, rng.at("rollout", step))


def rows(training) -> torch.Tensor:
    return training.source.state_dict()["rows"]


def test_the_same_seed_pushes_the_same_rows_and_every_refresh_others():
    first, second, other = build(), build(), build()
    for step in (0, 10):
        push(first, step)
        push(second, step)
        push(other, step, seed=1)
    assert torch.equal(rows(first), rows(second))
    assert not torch.equal(rows(first), rows(other))
    assert not torch.equal(rows(first)[30:80], rows(first)[80:])  # new starts, new noise


def test_standardising_by_data_that_do_not_exist_is_refused():
    with pytest.raises(ValueError, match="normalise_observations has no effect online"):
        build(learner={"name": "sac", "hidden": [8]})


def test_a_resumed_stream_pushes_what_the_uninterrupted_one_does():
    whole, resumed = build(), build()
    push(whole, 0)
    resumed.source.load_state_dict(whole.source.state_dict())
    for training in (whole, resumed):
        push(training, 10)
    assert torch.equal(rows(whole), rows(resumed))
    draws = [training.source.sample(8, RngStreams(0).at("batch", 10)).reward for training in (whole, resumed)]
    assert torch.equal(*draws)


def test_the_warm_up_comes_once_before_the_first_update_and_acts_uniformly():
    training = build(warmup_steps=2000, refresh_steps=20)
    push(training, 0)
    assert len(training.source) == 2020
    warm_up = rows(training)[:2000, 3]
    assert float(warm_up.mean()) == pytest.approx(0.0, abs=0.15)
    assert float(warm_up.std()) == pytest.approx(4 / 12**0.5, rel=0.05)  # uniform on [-2, 2]
    push(training, 10)
    assert len(training.source) == 2040
    late = build(warmup_steps=2000, refresh_steps=20)
    push(late, 10)
    assert len(late.source) == 20


def test_an_episode_that_the_refresh_cuts_is_not_terminated():
    training = build(warmup_steps=0)
    push(training, 0)
    batch = training.source.sample(200, torch.Generator().manual_seed(0))
    assert not batch.terminated.any()
    assert not batch.from_model.any()
    obs, successor = rows(training)[:, :3], rows(training)[:, 4:7]
    assert torch.equal(successor[:-1], obs[1:])  # one episode, uncut until the last step


def test_a_terminated_episode_is_marked_at_its_last_row_only():
    training = build("inverted_pendulum", warmup_steps=0, refresh_steps=200)
    metrics = push(training, 0)
    packed = rows(training)
    obs, successor, terminated = packed[:, :4], packed[:, 5:9], packed[:, -2] > 0.5
    assert len(packed) == 200
    jump = torch.cat([(successor[:-1] != obs[1:]).any(-1), torch.tensor([False])])
    assert int(terminated.sum()) > 3
    assert torch.equal(terminated[:-1], jump[:-1])  # the pendulum falls long before the time limit
    assert (successor[terminated][:, 1].abs() > 0.2).all()
    assert (successor[~terminated][:, 1].abs() <= 0.2).all()
    lengths = torch.diff(torch.cat([torch.tensor([-1]), terminated.nonzero()[:, 0]]))
    whole = lengths[: int(metrics["online/episodes"]) - 1].double()
    assert float(metrics["online/episode_return"]) == pytest.approx(
        float(whole.mean()) - 1
    )  # 1 for each step upright


def test_the_reported_return_counts_whole_episodes_also_where_none_terminates():
    training = build(warmup_steps=0, refresh_steps=450)  # 200, 200, and 50 of a third
    metrics = push(training, 0)
    reward = rows(training)[:, -3]
    expected = (reward[:200].sum() + reward[200:400].sum()) / 2
    assert float(metrics["online/episode_return"]) == pytest.approx(float(expected), rel=1e-4)
    assert float(metrics["online/episodes"]) == 3


def test_the_oldest_experience_makes_room():
    training = build(capacity=70, warmup_steps=0)
    for step in (0, 10, 20):
        push(training, step)
    assert len(training.source) == 70
    whole = build(warmup_steps=0)
    for step in (0, 10, 20):
        push(whole, step)
    kept = {tuple(row) for row in rows(training).tolist()}
    assert kept == {tuple(row) for row in rows(whole)[-70:].tolist()}


def test_a_run_never_allocates_more_than_it_can_fill():
    training = build()  # six refreshes of 50 after a warm-up of 30
    assert training.source.capacity == 330
    assert training.value_bounds is None


def test_without_a_task_there_is_no_simulator():
    config = OnlineConfig.model_validate(
        {"learner": {"name": "sac", "normalise_observations": False}, **SMALL}
    )
    space = load_task("pendulum").space
    with pytest.raises(ConfigError, match="Online trains in a simulator"):
        Online.build(config, RecipeContext(space, Normaliser.identity(3)))
