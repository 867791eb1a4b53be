"""Do PPO in the model and imitation learn? The point mass, with a good controller as the expert."""

import dataclasses
import functools

import pytest
import torch

from mbrl.algorithms.base import RecipeContext
from mbrl.core.rng import RngStreams
from mbrl.core.types import TransitionBatch
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.fit import fit_dynamics
from mbrl.nets.normaliser import Normaliser
from mbrl.uncertainty.held_out import held_out_measures
from tests.learning.test_point_mass import DYNAMICS, MOPO, SPACE, behaviour, learn_all, random_returns, run

pytestmark = pytest.mark.slow

PPO = {
    "updates": 336,
    "rollout": {"starts": 300, "horizon": 12, "respect_trusted_horizon": False},
    "epochs": 8,
    "learner": {
        "hidden": [64, 64],
        "batch_size": 600,
        "discount": 0.95,
        "actor_learning_rate": 2e-3,
        "value_learning_rate": 5e-3,
    },
}
AIRL = {
    "updates": 600,
    "refresh_interval": 150,
    "rollout": {"starts": 500, "horizon": 5, "respect_trusted_horizon": False},
    "discriminator_hidden": [32, 32],
    "discriminator_learning_rate": 1e-3,
    "demonstrations": 64,
    "learner": MOPO["learner"],
}
SMODICE = {
    "updates": 500,
    "demonstrations": 64,
    "learner": {"name": "smodice", "hidden": [64, 64], "discount": 0.95, "learning_rate": 2e-3},
}


def control(obs: torch.Tensor) -> torch.Tensor:
    """Pulls to 0 and brakes."""
    return (-2.0 * obs[:, 0] - 2.5 * obs[:, 1]).clamp(-1, 1)[:, None]


@functools.cache
def context() -> RecipeContext:
    log = behaviour(0)
    rows = log.transitions()
    mean, std = fit_moments(rows.observation)
    dynamics = fit_dynamics(log, DYNAMICS, RngStreams(0), measures=held_out_measures)
    observations, actions, rewards = run(control, 3, torch.Generator().manual_seed(5))
    flags = torch.zeros(rewards.numel(), dtype=torch.bool)
    expert = TransitionBatch(
        observations[:-1].flatten(0, 1), actions.flatten(0, 1), rewards.flatten(),
        observations[1:].flatten(0, 1), flags, flags,
    )  # fmt: skip
    normaliser = Normaliser(torch.from_numpy(mean), torch.from_numpy(std))
    return RecipeContext(
        SPACE, normaliser, rows.to_batch(), dynamics, episode=torch.tensor(rows.episode), expert=expert
    )


def chance(share: float) -> float:
    return float(random_returns().quantile(share))


def test_ppo_learns_in_the_model() -> None:
    found, _, _ = learn_all("mopo_ppo", PPO, context(), 0)
    assert found > chance(0.9)


def test_inverse_rl_finds_the_reward_of_three_episodes_and_a_policy_for_it() -> None:
    hidden = dataclasses.replace(context(), transitions=dataclasses.replace(
        context().logged("test"), reward=torch.full_like(context().logged("test").reward, torch.nan)
    ))  # fmt: skip
    found, training, state = learn_all("adversarial", AIRL, hidden, 0)
    assert found > chance(0.9)
    rows = context().logged("test")
    reward = training.learner.reward_model(state).reward(rows.observation, rows.action).detach()
    correlation = torch.corrcoef(torch.stack([reward, rows.reward]))[0, 1]
    assert float(correlation) > 0.5


def test_weighted_imitation_takes_the_good_part_of_a_bad_log() -> None:
    found, _, _ = learn_all("demonstrations", SMODICE, context(), 0)
    assert found > chance(0.75)
