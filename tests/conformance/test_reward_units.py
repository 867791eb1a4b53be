"""Learning does not depend on the unit of rewards: every learner and recipe but the published forms."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.algorithms.base import RECIPES, RecipeContext
from mbrl.core.protocols import Training
from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, SpaceSpec, take
from mbrl.data.dataset import Dataset, DatasetInfo
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.learners.base import LEARNERS
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
from tests.run.toy import TINY_DYNAMICS, assert_same

pytestmark = pytest.mark.slow

SPACE = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-1.0,), act_high=(1.0,))
UPDATES = 30
SMALL: dict[str, Any] = {
    "updates": UPDATES,
    "learner.hidden": [16, 16],
    "learner.batch_size": 32,
    "refresh_interval": 10,
    "rollout.starts": 40,
    "rollout.horizon": 3,
    "rollout.respect_trusted_horizon": False,
    "states": 12,
    "sims": 8,
    "search_from": 10,
    "discriminator_hidden": [16],
    "demonstrations": 16,
    "pairs": 8,
}


NAMES = offline_names()


@functools.cache
def _dataset(scale: float, *, choices: bool = False) -> Dataset:
    """A double integrator under a noisy controller; leaving the track costs ten steps, and ends it."""
    rng, episodes = np.random.default_rng(0), []
    for _ in range(20):
        obs, actions, rewards, ended = [rng.normal(size=2)], [], [], False
        while len(actions) < 40 and not ended:
            x, v = obs[-1]
            action = np.clip(-0.5 * x - 0.5 * v + 0.5 * rng.normal(), -1, 1)
            sent = nearest_choice(action) if choices else np.array([action])
            action = float(push_of(sent[None])[0])
            obs.append(np.array([x + 0.1 * v, v + 0.1 * action]) + 0.01 * rng.normal(size=2))
            ended = bool(abs(obs[-1][0]) > 2.0)
            actions.append(sent)
            rewards.append(-(x**2) - 0.1 * v**2 - 0.01 * action**2 - 10.0 * ended)
        reward = np.array(rewards, np.float32) * np.float32(scale)
        episodes.append(
            Episode(
                np.array(obs, np.float32),
                np.array(actions, np.float32),
                reward,
                terminated=ended,
                truncated=not ended,
            )
        )
    return Dataset(tuple(episodes), CHOICES if choices else SPACE, DatasetInfo(name="integrator"))


@functools.cache
def _dynamics(scale: float, *, choices: bool) -> FittedDynamics:
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    return fit_dynamics(_dataset(scale, choices=choices), config, RngStreams(0), measures=held_out_measures)


def _build(name: str, scale: float) -> Training:
    choices = takes_choices(name)
    log = _dataset(scale, choices=choices)
    rows = log.transitions()
    mean, std = fit_moments(rows.observation)
    recipe, config = small_algorithm(name, SMALL)
    context = RecipeContext(
        CHOICES if choices else SPACE,
        Normaliser(torch.from_numpy(mean), torch.from_numpy(std)),
        rows.to_batch(),
        _dynamics(scale, choices=choices) if RECIPES.get(recipe).needs_dynamics else None,
        episode=torch.tensor(rows.episode),
        expert=take(rows.to_batch(), torch.arange(80)),
        preferences=SegmentPairs.of(log, answer_pairs(log, draw_pairs(log, count=40, length=8))),
    )
    return RECIPES.get(recipe).build(config, context)


@functools.cache
def _trained(name: str, scale: float) -> tuple[Training, Any, dict[str, float]]:
    """The training after its last update, its state, and its last metrics."""
    training, rng = _build(name, scale), RngStreams(0)
    state, metrics = training.learner.init(rng.at("init")), {}
    for step in range(UPDATES):
        if training.refresh is not None and step % training.refresh_interval == 0:
            renew(training, state, step, rng.at("rollout", step))
        batch = training.source.sample(training.batch_size, rng.at("batch", step))
        metrics = training.learner.update(state, batch, rng.at("update", step))
    return training, state, {key: float(value) for key, value in metrics.items()}


def _seen(name: str, scale: float) -> float:
    """The factor as the method sees it: a clone reads no reward, and has no unit."""
    return scale if small_algorithm(name, SMALL)[1].reads_rewards else 1.0


@pytest.fixture(autouse=True, scope="module")
def _forget() -> Iterator[None]:
    yield
    for cached in (_dataset, _dynamics, _trained):
        cached.cache_clear()


def test_every_learner_and_every_offline_recipe_is_among_them() -> None:
    algorithms = [small_algorithm(name, SMALL) for name in NAMES]
    offline = {name for name in RECIPES.names() if not RECIPES.get(name).is_online}
    assert {recipe for recipe, _ in algorithms} == offline
    assert {config.learner.name for _, config in algorithms} == set(LEARNERS.names())
    assert {config.reward_transform for _, config in algorithms} == {"standardise"}


@pytest.mark.parametrize("power", [-13, 13])
@pytest.mark.parametrize("name", NAMES)
def test_rewards_times_a_power_of_two_give_the_same_training_to_the_last_bit(name: str, power: int) -> None:
    """Such a factor is exact in floating point, so nothing may differ: 1.2e-4 and 8.2e3 times the rewards."""
    plain, state, metrics = _trained(name, 1.0)
    scaled, other, scaled_metrics = _trained(name, 2.0**power)
    assert_same(other.state_dict(), state.state_dict())
    assert scaled.reward_unit == _seen(name, 2.0**power) * plain.reward_unit
    if plain.value_bounds is not None:
        assert scaled.value_bounds == tuple(2.0**power * bound for bound in plain.value_bounds)
    # Values are told in the units of the log, all else is the same.
    for key, value in metrics.items():
        factor = 2.0**power if abs(scaled_metrics[key]) != abs(value) else 1.0
        assert scaled_metrics[key] == factor * value, key
    value, scaled_value = plain.learner.value(state), scaled.learner.value(other)
    if value is not None and scaled_value is not None:
        obs = torch.tensor(_dataset(1.0).transitions().observation[:50])
        # Of a reward that is not the log's the values are the same.
        assert torch.equal(scaled_value.value(obs), _seen(name, 2.0**power) * value.value(obs))


@pytest.mark.parametrize("scale", [1e-4, 1e4])
@pytest.mark.parametrize("name", NAMES)
def test_rewards_times_ten_thousand_or_a_ten_thousandth_give_the_same_policy(name: str, scale: float) -> None:
    """Only what rounding of the scaled rewards leaves: some 1e-7 of them, and what training makes of it."""
    plain, state, _ = _trained(name, 1.0)
    scaled, other, _ = _trained(name, scale)
    obs = torch.tensor(_dataset(1.0).transitions().observation)
    first, second = plain.learner.policy(state).act(obs), scaled.learner.policy(other).act(obs)
    if takes_choices(name):
        # Choices that are worth the same within rounding may be told apart by it.
        assert float((first == second).all(1).double().mean()) > 0.98
    else:
        torch.testing.assert_close(second, first, rtol=0, atol=5e-3)
    assert scaled.reward_unit == pytest.approx(_seen(name, scale) * plain.reward_unit, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_one_wrong_reward_leaves_the_size_of_the_others(name: str) -> None:
    data = _dataset(1.0)
    first = data.episodes[0]
    rewards = first.rewards.copy()
    rewards[3] = 1e12
    spoiled = dataclasses.replace(
        data, episodes=(dataclasses.replace(first, rewards=rewards), *data.episodes[1:])
    )
    _, config = small_algorithm(name, SMALL)
    contexts = [
        RecipeContext(SPACE, Normaliser.identity(2), part.transitions().to_batch())
        for part in (data, spoiled)
    ]
    plain, other = (context.reward_unit(config) for context in contexts)
    assert other == pytest.approx(plain, rel=0.5)
