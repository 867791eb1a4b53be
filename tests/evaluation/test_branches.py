"""Branches of a policy's road, in a simulator whose returns are known."""

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.envs.specs import load_task
from mbrl.evaluation.branches import branch_returns, travel

TASK = load_task("pendulum").model_copy(update={"max_episode_steps": 12})


class Brake:
    """Torque against the turning."""

    act_dim = 1

    def act(self, obs: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        del noise
        return (-obs[:, 2:3]).clamp(-2, 2)


def pendulum(obs: np.ndarray, action: float) -> tuple[np.ndarray, float]:
    """One step of Gymnasium's pendulum, by its documented equations."""
    angle, speed = float(np.arctan2(obs[1], obs[0])), float(obs[2])
    u = float(np.clip(action, -2, 2))
    reward = -(angle**2 + 0.1 * speed**2 + 0.001 * u**2)
    speed = float(np.clip(speed + (15.0 * np.sin(angle) + 3.0 * u) * 0.05, -8, 8))
    angle += speed * 0.05
    return np.array([np.cos(angle), np.sin(angle), speed]), reward


def by_hand(obs: np.ndarray, action: float, steps: int) -> float:
    total, state = 0.0, obs.astype(np.float64)
    for _ in range(steps):
        state, reward = pendulum(state, action)
        total, action = total + reward, float(np.clip(-state[2], -2, 2))
    return total


def test_branches_return_what_the_equations_say():
    rng = RngStreams(3)
    road = travel(TASK, Brake(), rng=rng, episodes=2, states=6)
    assert len(road.points) == 6
    assert {k for k, _ in road.points} <= {0, 1}
    actions = np.array([[[-2.0], [0.5], [2.0]]] * 6, np.float32)
    found = branch_returns(TASK, Brake(), road, actions, rng=rng, horizon=4, num_envs=5)
    for i, (_, t) in enumerate(road.points):
        wanted = [by_hand(road.obs[i], float(a), min(4, 12 - t)) for a in actions[i, :, 0]]
        assert found[i] == pytest.approx(np.array(wanted), rel=1e-3)


def test_the_policys_own_action_gives_its_own_road():
    rng = RngStreams(0)
    road = travel(TASK, Brake(), rng=rng, episodes=1, states=4)
    own = np.stack([road.records[k].actions[t] for k, t in road.points])[:, None]
    found = branch_returns(TASK, Brake(), road, own, rng=rng, horizon=100)
    for i, (k, t) in enumerate(road.points):
        assert found[i, 0] == pytest.approx(road.records[k].rewards[t:].sum(), rel=1e-6)


def test_a_simulator_that_does_not_repeat_itself_is_refused():
    road = travel(TASK, Brake(), rng=RngStreams(0), episodes=1, states=4)
    with pytest.raises(ConfigError, match="does not repeat its episodes"):
        branch_returns(TASK, Brake(), road, np.zeros((4, 1, 1), np.float32), rng=RngStreams(1), horizon=2)
