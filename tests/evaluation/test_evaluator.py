import dataclasses
import json
import os
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from mbrl.core.errors import ConfigError, MissingExtraError
from mbrl.core.rng import RngStreams
from mbrl.envs.collect import collect
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.evaluation import video as video_module
from mbrl.evaluation.evaluator import evaluate
from mbrl.evaluation.video import Recorder
from mbrl.nets.random_policy import RandomPolicy

PENDULUM = load_task("pendulum")


@dataclasses.dataclass(frozen=True)
class SwingUp:
    """Pumps energy into the pendulum, then holds it."""

    act_dim: int = 1

    def act(self, obs: Tensor, noise: Tensor | None = None) -> Tensor:
        cos, sin, speed = obs.unbind(-1)
        lack = 5.0 - (speed**2 / 6.0 + 5.0 * cos)
        pump = lack * torch.where(speed == 0, 1.0, speed.sign()) * 2.0
        hold = -10.0 * torch.atan2(sin, cos) - 2.0 * speed
        return torch.where(cos > 0.8, hold, pump).clamp(-2.0, 2.0).unsqueeze(-1)


def plain_rewards(seed: int, episodes: int) -> list[list[float]]:
    env, streams, rewards = gymnasium.make("Pendulum-v1"), RngStreams(seed), []
    for index in range(episodes):
        obs, _ = env.reset(seed=streams.integer("reset", index))
        rewards.append([])
        for _ in range(200):
            action = SwingUp().act(torch.as_tensor(obs)[None])[0].numpy()
            obs, reward, *_ = env.step(action)
            rewards[-1].append(float(reward))
    env.close()
    return rewards


@pytest.mark.parametrize("num_envs", [1, 3, 10])
def test_returns_are_exactly_those_of_a_plain_loop(num_envs: int) -> None:
    rewards = plain_rewards(seed=3, episodes=5)
    result = evaluate(PENDULUM, SwingUp(), episodes=5, rng=RngStreams(3), num_envs=num_envs, discount=0.9)
    assert result.episode_returns == tuple(float(np.sum(r)) for r in rewards)
    assert result.episode_lengths == (200,) * 5
    assert result.environment_steps == 1000
    assert result.terminated == (False,) * 5
    discounted = [sum(0.9**t * reward for t, reward in enumerate(r)) for r in rewards]
    np.testing.assert_allclose(result.discounted_returns, discounted, rtol=1e-12)


def test_a_good_controller_scores_near_100_and_a_random_one_near_0() -> None:
    good = evaluate(PENDULUM, SwingUp(), episodes=40, rng=RngStreams(0))
    random = evaluate(
        PENDULUM, RandomPolicy(PENDULUM.space), episodes=40, rng=RngStreams(0), is_deterministic=False
    )
    assert good.score_interval is not None
    assert random.score_interval is not None
    assert 97 < good.score_interval.estimate < 103
    assert -7 < random.score_interval.estimate < 7
    assert random.score_interval.low <= random.score_interval.estimate <= random.score_interval.high


def test_scores_are_per_episode_and_averaged_afterwards() -> None:
    hopper = load_task("hopper")
    result = evaluate(
        hopper, RandomPolicy(hopper.space), episodes=6, rng=RngStreams(0), is_deterministic=False
    )
    assert result.normalised_scores is not None
    assert result.score_interval is not None
    expected = [100 * (r + 20.272305) / (3234.3 + 20.272305) for r in result.episode_returns]
    np.testing.assert_allclose(result.normalised_scores, expected)
    assert result.score_interval.estimate == pytest.approx(np.mean(expected))
    assert result.return_interval.estimate == pytest.approx(np.mean(result.episode_returns))
    assert result.terminated == (True,) * 6


def test_evaluation_and_collection_see_the_same_episodes() -> None:
    hopper = load_task("hopper")
    policy = RandomPolicy(hopper.space)
    result = evaluate(hopper, policy, episodes=4, rng=RngStreams(9), is_deterministic=False)
    episodes = collect(hopper, policy, rng=RngStreams(9), episodes=4)
    assert result.episode_lengths == tuple(map(len, episodes))
    np.testing.assert_allclose(result.episode_returns, [e.episode_return for e in episodes], rtol=1e-6)


def test_one_episode_gives_an_estimate_without_an_interval() -> None:
    result = evaluate(PENDULUM, SwingUp(), episodes=1, rng=RngStreams(0))
    written = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert written["return_interval"]["low"] is None
    assert written["return_interval"]["estimate"] == result.episode_returns[0]
    assert written["seconds"] is None


def test_the_same_seed_gives_the_same_json_and_another_seed_another() -> None:
    first, again, other = (
        json.dumps(evaluate(PENDULUM, SwingUp(), episodes=3, rng=RngStreams(seed)).to_json())
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_the_clock_is_the_callers() -> None:
    ticks = iter([10.0, 12.5])
    assert (
        evaluate(PENDULUM, SwingUp(), episodes=1, rng=RngStreams(0), clock=lambda: next(ticks)).seconds == 2.5
    )


def test_a_task_without_references_has_no_scores() -> None:
    reacher = load_task("reacher")
    result = evaluate(reacher, RandomPolicy(reacher.space), episodes=2, rng=RngStreams(0))
    assert result.normalised_scores is None
    assert result.score_interval is None
    assert result.to_json()["score_interval"] is None


@pytest.mark.parametrize("episodes", [0, -3])
def test_at_least_one_episode_is_needed(episodes: int) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        evaluate(PENDULUM, SwingUp(), episodes=episodes, rng=RngStreams(0))


def test_a_task_without_a_simulator_cannot_be_evaluated() -> None:
    task = TaskSpec.model_validate(
        {"name": "rig", "obs_dim": 3, "act_dim": 1, "act_low": [-2], "act_high": [2]}
    )
    with pytest.raises(ConfigError, match="mbrl ope"):
        evaluate(task, SwingUp(), episodes=1, rng=RngStreams(0))


def test_a_film_holds_every_frame_of_episode_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iio = pytest.importorskip("imageio.v3")
    frames = iter(range(10**6))

    def draw(env: object) -> np.ndarray:
        return np.full((8, 8, 3), next(frames) * 20 % 256, dtype=np.uint8)

    monkeypatch.setattr(video_module, "render_frame", draw)
    task = TaskSpec.model_validate(PENDULUM.model_dump() | {"max_episode_steps": 6})
    path = tmp_path / "films" / "swing.gif"
    filmed = evaluate(task, SwingUp(), episodes=3, rng=RngStreams(0), video=path)
    assert filmed == evaluate(task, SwingUp(), episodes=3, rng=RngStreams(0))
    assert iio.imread(path)[:, 0, 0, 0].tolist() == [20 * k for k in range(7)]


def test_other_films_are_refused_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"\.mp4 or \.gif"):
        Recorder(Path("film.avi"))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio.v3", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mbrl-offline\[video\]'"):
        evaluate(PENDULUM, SwingUp(), episodes=1, rng=RngStreams(0), video=Path("film.gif"))


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("MUJOCO_GL") != "egl", reason="draws with MUJOCO_GL=egl only")
def test_a_film_of_a_real_simulator(tmp_path: Path) -> None:
    iio = pytest.importorskip("imageio.v3")
    hopper = TaskSpec.model_validate(load_task("hopper").model_dump() | {"max_episode_steps": 3})
    path = tmp_path / "hop.gif"
    evaluate(hopper, RandomPolicy(hopper.space), episodes=2, rng=RngStreams(0), video=path)
    film = iio.imread(path)
    assert film.shape[0] == 4
    assert film.std() > 5  # a picture, not a blank
