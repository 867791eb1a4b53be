"""Every learner and recipe earns the same return whatever unit its rewards are in: a double integrator."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.protocols import Policy
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, SpaceSpec, take
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.nets.normaliser import Normaliser
from mbrl.preferences.segments import SegmentPairs
from mbrl.preferences.synthetic import answer_pairs, draw_pairs
from mbrl.run.loop import renew
from mbrl.uncertainty.held_out import held_out_measures
from tests.conformance.small import (
    CHOICES,
    nearest_choice,
    offline_names,
    push_of,
    small_algorithm,
    takes_choices,
)

pytestmark = pytest.mark.slow

SPACE = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-1.0,), act_high=(1.0,))
STEPS, EPISODES = 40, 30
FACTORS = (1e-4, 1.0, 1e4)
UPDATES = 100
SMALL: dict[str, Any] = {
    "updates": UPDATES,
    "learner.hidden": [32, 32],
    "learner.batch_size": 64,
    "refresh_interval": 50,
    "rollout.starts": 200,
    "rollout.horizon": 3,
    "rollout.respect_trusted_horizon": False,
    "states": 16,
    "sims": 8,
    "search_from": 50,
    "discriminator_hidden": [16],
    "demonstrations": 16,
    "pairs": 8,
}
# The system is linear: a linear base would leave members nothing but rounding, which differs between units;
# large steps would spread rounding over the fit.
FIT = {
    "base": "none",
    "members": 3,
    "elites": 2,
    "hidden": [32, 32],
    "weight_decay": None,
    "learning_rate": 1e-3,
    "max_updates": 600,
}


NAMES = offline_names()


def step(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`x' = x + 0.1 v, v' = v + 0.3 a`; the reward is `-(x^2 + 0.1 v^2 + 0.01 a^2)`."""
    x, v = state[:, 0], state[:, 1]
    reward = -(x**2 + 0.1 * v**2 + 0.01 * action**2)
    return np.stack([x + 0.1 * v, v + 0.3 * action], 1), reward


@functools.cache
def dataset(factor: float, *, choices: bool = False) -> Dataset:
    """A noisy, timid controller, from starts around the origin."""
    rng = np.random.default_rng(0)
    state, rows = rng.normal(size=(EPISODES, 2)), []
    for _ in range(STEPS):
        push = np.clip(-0.3 * state[:, 0] - 0.3 * state[:, 1] + 0.5 * rng.normal(size=EPISODES), -1, 1)
        action = nearest_choice(push) if choices else push[:, None]
        following, reward = step(state, push_of(action))
        rows.append((state, action, reward * factor))
        state = following
    obs = np.stack([row[0] for row in rows] + [state], 1).astype(np.float32)
    actions = np.stack([row[1] for row in rows], 1).astype(np.float32)
    rewards = np.stack([row[2] for row in rows], 1).astype(np.float32)
    episodes = tuple(
        Episode(obs[k], actions[k], rewards[k], terminated=False, truncated=True) for k in range(EPISODES)
    )
    return Dataset(episodes, CHOICES if choices else SPACE, DatasetInfo(name="integrator"))


@functools.cache
def dynamics(factor: float, *, choices: bool) -> FittedDynamics:
    config = DynamicsConfig.model_validate(FIT)
    return fit_dynamics(dataset(factor, choices=choices), config, RngStreams(0), measures=held_out_measures)


def trained(name: str, factor: float) -> Policy:
    choices = takes_choices(name)
    log = dataset(factor, choices=choices)
    rows = log.transitions()
    mean, std = fit_moments(rows.observation)
    recipe, config = small_algorithm(name, SMALL)
    context = RecipeContext(
        CHOICES if choices else SPACE,
        Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
        rows.to_batch(),
        dynamics(factor, choices=choices) if RECIPES.get(recipe).needs_dynamics else None,
        episode=torch.tensor(rows.episode),
        expert=take(rows.to_batch(), torch.arange(80)),
        preferences=SegmentPairs.of(log, answer_pairs(log, draw_pairs(log, count=40, length=8))),
    )
    training, rng = RECIPES.get(recipe).build(config, context), RngStreams(0)
    state = training.learner.init(rng.at("init"))
    for update in range(UPDATES):
        if training.refresh is not None and update % training.refresh_interval == 0:
            renew(training, state, update, rng.at("rollout", update))
        batch = training.source.sample(training.batch_size, rng.at("batch", update))
        training.learner.update(state, batch, rng.at("update", update))
    return training.learner.policy(state)


@functools.cache
def mean_return(name: str, factor: float) -> float:
    """In the units of factor 1, over 200 starts that are the same for all."""
    policy = trained(name, factor)
    state, total = np.random.default_rng(1).normal(size=(200, 2)), 0.0
    for _ in range(STEPS):
        with torch.no_grad():
            action = policy.act(torch.tensor(state, dtype=torch.float32)).double().numpy()
        state, reward = step(state, np.clip(push_of(action), -1, 1))
        total += float(reward.mean())
    return total


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    for cached in (dataset, dynamics, mean_return):
        cached.cache_clear()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_the_return_does_not_depend_on_the_unit_of_rewards(name: str) -> None:
    """Within a twentieth, far less than what another seed changes.

    So short a training says nothing of how good a method is: what would differ is what depends on units.
    """
    by_unit = [mean_return(name, factor) for factor in FACTORS]
    behaviour = float(dataset(1.0, choices=takes_choices(name)).episode_returns.mean())
    assert max(by_unit) - min(by_unit) <= 0.05 * max(abs(behaviour), -min(by_unit)), by_unit
