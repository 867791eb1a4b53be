"""Do the recipes learn? A point mass on a line, logged under behaviour of mixed quality."""

from typing import Any

import numpy as np
import pytest
import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.nets.normaliser import Normaliser
from mbrl.run.loop import renew
from mbrl.uncertainty.held_out import held_out_measures

SPACE = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-1.0,), act_high=(1.0,))
STEPS = 40
SEEDS = 3

DYNAMICS = DynamicsConfig.model_validate(
    {
        "members": 3,
        "elites": 2,
        "hidden": [64, 64],
        "max_updates": 600,
        "assessment": {"horizon": 5, "segments": 20, "particles": 10, "bootstrap_draws": 20},
    }
)
BC = {"updates": 400, "learner": {"name": "bc", "hidden": [64, 64], "learning_rate": 2e-3}}
MOPO = {
    "updates": 1200,
    "refresh_interval": 200,
    "rollout": {"starts": 500, "horizon": 3, "respect_trusted_horizon": False},
    "learner": {
        "name": "sac",
        "hidden": [64, 64],
        "batch_size": 64,
        "discount": 0.95,
        "actor_learning_rate": 2e-3,
        "critic_learning_rate": 2e-3,
        "actor_schedule": "cosine",
        "critic_layer_norm": True,
        "has_entropy_backup": False,
        "entropy_coef": 0.05,
        "polyak_tau": 0.03,
    },
}


def step(
    obs: torch.Tensor, action: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A mass pushed along a line, on slightly uneven ground: it should rest at 0."""
    position, speed = obs.unbind(-1)
    push = action[:, 0].clamp(-1, 1)
    speed = 0.95 * speed + 0.2 * push + 0.02 * torch.randn(len(obs), generator=generator)
    reward = -obs[:, 0].square() - 0.1 * obs[:, 1].square() - 0.02 * push.square()
    return torch.stack([position + 0.3 * speed, speed], -1), reward


def run(act, episodes: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observations `[t + 1, b, 2]`, actions `[t, b, 1]`, rewards `[t, b]` from random positions at rest."""
    start = 3.0 * torch.rand(episodes, generator=generator) - 1.5
    observations, actions, rewards = [torch.stack([start, torch.zeros(episodes)], -1)], [], []
    for _ in range(STEPS):
        actions.append(act(observations[-1]))
        following, reward = step(observations[-1], actions[-1], generator)
        observations.append(following)
        rewards.append(reward)
    return torch.stack(observations), torch.stack(actions), torch.stack(rewards)


def behaviour(seed: int) -> Dataset:
    """Half of the episodes at random, half under a weak controller that does not brake."""
    generator = torch.Generator().manual_seed(seed)
    gain = torch.where(torch.arange(60) % 2 == 0, 0.0, 0.2)

    def act(obs: torch.Tensor) -> torch.Tensor:
        noise = 2 * torch.rand(60, generator=generator) - 1
        return (noise - gain * obs[:, 0]).clamp(-1, 1)[:, None]

    observations, actions, rewards = (part.numpy() for part in run(act, 60, generator))
    episodes = tuple(
        Episode(
            np.ascontiguousarray(observations[:, k]),
            np.ascontiguousarray(actions[:, k]),
            np.ascontiguousarray(rewards[:, k]),
            terminated=False,
            truncated=True,
        )
        for k in range(60)
    )
    return Dataset(episodes, SPACE, DatasetInfo(name="point mass"))


def random_returns() -> torch.Tensor:
    generator = torch.Generator().manual_seed(123)

    def act(obs: torch.Tensor) -> torch.Tensor:
        return 2 * torch.rand(len(obs), 1, generator=generator) - 1

    return run(act, 1000, generator)[2].sum(0)


def learn(recipe_name: str, values: dict, context: RecipeContext, seed: int) -> float:
    """Mean return of the last policy, acting without noise; the loop without its files."""
    return learn_all(recipe_name, values, context, seed)[0]


def learn_all(
    recipe_name: str, values: dict, context: RecipeContext, seed: int
) -> tuple[float, Training, Any]:
    """The same with the training and its last state."""
    recipe, rng = RECIPES.get(recipe_name), RngStreams(seed)
    config = recipe.Config.model_validate(values)
    training = recipe.build(config, context)
    state = training.learner.init(rng.at("init"))
    for update in range(config.updates):
        if training.refresh is not None and update % training.refresh_interval == 0:
            renew(training, state, update, rng.at("rollout", update))
        batch = training.source.sample(training.batch_size, rng.at("batch", update))
        training.learner.update(state, batch, rng.at("update", update))
    policy = training.learner.policy(state)
    found = run(policy.act, 200, torch.Generator().manual_seed(7))[2].sum(0).mean()
    return float(found), training, state


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_mopo_beats_the_clone_and_the_clone_beats_chance(seed: int) -> None:
    dataset = behaviour(seed)
    logged = dataset.transitions()
    mean, std = fit_moments(logged.observation)
    dynamics = fit_dynamics(dataset, DYNAMICS, RngStreams(seed), measures=held_out_measures)
    normaliser = Normaliser(torch.from_numpy(mean), torch.from_numpy(std))
    context = RecipeContext(SPACE, normaliser, logged.to_batch(), dynamics)
    clone = learn("model_free", BC, context, seed)
    mopo = learn("mopo", MOPO, context, seed)
    chance = random_returns()
    good, best = float(chance.quantile(0.75)), float(chance.quantile(0.9))
    assert clone > good, (clone, good)
    assert mopo > best, (mopo, best)
    assert mopo > clone, (mopo, clone)
