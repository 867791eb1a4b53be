import dataclasses
import math

import gymnasium
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mbrl.core.errors import ConfigError
from mbrl.core.protocols import StochasticPolicy
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, SpaceSpec
from mbrl.envs.collect import collect
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.nets.random_policy import RandomPolicy

BOX = SpaceSpec(obs_dim=2, act_dim=3, act_low=(-1.0, 0.0, -7.0), act_high=(1.0, 0.25, 5.0))


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """`N(obs_0, (scale limit)^2)`, not clipped: a density that can be worked by hand."""

    limit: float
    scale: float = 0.1
    act_dim: int = 1

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        mean = obs[:, :1]
        return mean if noise is None else mean + self.scale * self.limit * noise

    def log_prob(self, obs: Tensor, action: Tensor) -> Tensor:
        z = (action - obs[:, :1]) / (self.scale * self.limit)
        return (-0.5 * z**2 - math.log(self.scale * math.sqrt(2 * math.pi))).sum(dim=-1)

    def sample(self, obs: Tensor, count: int, noise: Tensor) -> Tensor:
        return torch.stack([self.act(obs, noise[k]) for k in range(count)])


def are_equal(one: list[Episode], other: list[Episode]) -> bool:
    fields = ("observations", "actions", "rewards", "behaviour_log_prob", "terminated", "truncated")
    return len(one) == len(other) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in fields
    )


@pytest.mark.parametrize("name", ["hopper", "pendulum", "reacher", "pusher"])
def test_episodes_do_not_depend_on_the_number_of_simulators(name: str) -> None:
    # Also says that a simulator that has run other episodes resets to the same bits as a fresh one.
    task = load_task(name)
    policy = RandomPolicy(task.space)
    alone = collect(task, policy, rng=RngStreams(5), steps=430, num_envs=1)
    assert are_equal(alone, collect(task, policy, rng=RngStreams(5), steps=430, num_envs=7))
    assert not are_equal(alone, collect(task, policy, rng=RngStreams(6), steps=430, num_envs=1))
    assert sum(map(len, alone)) == 430


def test_episodes_are_those_of_a_plain_loop() -> None:
    task, streams = load_task("hopper"), RngStreams(1)
    policy = RandomPolicy(task.space)
    env = gymnasium.make("Hopper-v5")
    for index, episode in enumerate(collect(task, policy, rng=streams, episodes=5)):
        obs, _ = env.reset(seed=streams.integer("reset", index))
        noise = torch.randn(256, 3, generator=streams.at("noise", index))
        for step in range(len(episode)):
            np.testing.assert_array_equal(episode.observations[step], np.float32(obs))
            action = policy.act(torch.zeros(1, 11), noise[step : step + 1])[0].numpy()
            np.testing.assert_array_equal(episode.actions[step], action)
            obs, reward, terminated, truncated, _ = env.step(action)
            assert episode.rewards[step] == np.float32(reward)
            assert (terminated or truncated) == (step == len(episode) - 1)
        np.testing.assert_array_equal(episode.observations[-1], np.float32(obs))
        assert (episode.terminated, episode.truncated) == (terminated, truncated)
    env.close()


def test_flags_are_never_merged() -> None:
    # Under a time limit of 12 some of the hopper's episodes end by falling, others by the limit.
    task = TaskSpec.model_validate(load_task("hopper").model_dump() | {"max_episode_steps": 12})
    episodes = collect(task, RandomPolicy(task.space), rng=RngStreams(0), episodes=60)
    falls, limits = [e for e in episodes if e.terminated], [e for e in episodes if e.truncated]
    assert len(falls) + len(limits) == 60
    assert min(len(falls), len(limits)) >= 5
    assert all(len(e) == 12 for e in limits)
    for e in falls:
        z, angle = e.observations[-1][:2]
        assert not (z > 0.7 and abs(angle) < 0.2)


def test_a_fall_at_the_time_limit_is_a_termination() -> None:
    hopper = load_task("hopper")
    length = len(collect(hopper, RandomPolicy(hopper.space), rng=RngStreams(0), episodes=1)[0])
    task = TaskSpec.model_validate(hopper.model_dump() | {"max_episode_steps": length})
    episode = collect(task, RandomPolicy(task.space), rng=RngStreams(0), episodes=1)[0]
    assert (len(episode), episode.terminated, episode.truncated) == (length, True, False)


def test_everything_is_float32_and_read_only() -> None:
    task = load_task("hopper")
    episode = collect(
        task, RandomPolicy(task.space), rng=RngStreams(0), episodes=1, info_keys=("x_position",)
    )[0]
    assert episode.behaviour_log_prob is not None
    for array in (episode.observations, episode.actions, episode.rewards, episode.behaviour_log_prob):
        assert array.dtype == np.float32
        assert not array.flags.writeable
    assert episode.infos["x_position"].shape == (len(episode),)


def test_the_log_density_is_of_the_scaled_action() -> None:
    task = load_task("pendulum")
    episode = collect(task, Gaussian(limit=2.0), rng=RngStreams(0), episodes=1)[0]
    scaled = episode.actions[:, 0] / 2.0
    expected = scipy.stats.norm(episode.observations[:-1, 0] / 2.0, 0.1).logpdf(scaled)
    np.testing.assert_allclose(episode.behaviour_log_prob, expected, rtol=2e-4)


def test_a_deterministic_action_has_no_density() -> None:
    task = load_task("pendulum")
    episode = collect(task, Gaussian(limit=2.0), rng=RngStreams(0), episodes=1, is_deterministic=True)[0]
    assert episode.behaviour_log_prob is None
    np.testing.assert_array_equal(episode.actions[:, 0], episode.observations[:-1, 0])


def test_random_actions_fill_each_dimension_between_its_own_bounds() -> None:
    noise = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    actions = RandomPolicy(BOX).act(torch.zeros(4000, 2), noise).numpy()
    for dim, (low, high) in enumerate(zip(BOX.act_low, BOX.act_high, strict=True)):
        uniform = scipy.stats.uniform(low, high - low)
        assert scipy.stats.kstest(actions[:, dim], uniform.cdf).pvalue > 0.01


@given(value=st.floats(-50, 50, width=32))
def test_random_actions_stay_inside_for_any_noise(value: float) -> None:
    action = RandomPolicy(BOX).act(torch.zeros(1, 2), torch.full((1, 3), value))
    assert ((action >= torch.tensor(BOX.act_low)) & (action <= torch.tensor(BOX.act_high))).all()
    assert RandomPolicy(BOX).log_prob(torch.zeros(1, 2), action).item() == pytest.approx(-3 * math.log(2))


def test_the_random_policy_at_known_points() -> None:
    policy = RandomPolicy(BOX)
    assert isinstance(policy, StochasticPolicy)
    middle = policy.act(torch.zeros(2, 2))
    torch.testing.assert_close(middle, torch.tensor([[0.0, 0.125, -1.0]]).expand(2, 3))
    quartile = policy.act(torch.zeros(1, 2), torch.full((1, 3), scipy.stats.norm.ppf(0.75)))
    torch.testing.assert_close(quartile, torch.tensor([[0.5, 0.1875, 2.0]]))
    outside = policy.log_prob(torch.zeros(1, 2), torch.tensor([[0.0, 0.3, 0.0]]))
    assert outside.item() == -math.inf
    noise = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        policy.sample(torch.zeros(2, 2), 4, noise)[3], policy.act(torch.zeros(2, 2), noise[3])
    )


def test_a_task_without_a_simulator_cannot_be_collected() -> None:
    task = TaskSpec.model_validate(
        {"name": "rig", "obs_dim": 1, "act_dim": 1, "act_low": [0], "act_high": [1]}
    )
    with pytest.raises(ConfigError, match="no simulator"):
        collect(task, RandomPolicy(task.space), rng=RngStreams(0), steps=1)


@pytest.mark.parametrize("num_envs", [0, -1])
def test_at_least_one_simulator_is_needed(num_envs: int) -> None:
    task = load_task("pendulum")
    with pytest.raises(ConfigError, match="num_envs"):
        collect(task, RandomPolicy(task.space), rng=RngStreams(0), steps=1, num_envs=num_envs)
