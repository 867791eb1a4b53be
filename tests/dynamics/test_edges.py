"""Logs at the edges of what a fit can make use of: columns without a signal, offsets, absurd rewards."""

import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset
from mbrl.data.info import DatasetInfo
from mbrl.dynamics.fit import fit_dynamics, split_for
from mbrl.ops.spread import robust_scale
from mbrl.uncertainty.held_out import held_out_measures

from .systems import make_dataset, small_config

TOY = make_dataset(episodes=40, noise=0.01)


def fit(dataset, **changes):
    config = small_config(**({"max_updates": 600} | changes))
    return fit_dynamics(dataset, config, RngStreams(0), measures=held_out_measures)


def add_channel(dataset, column, *, name="resting"):
    """The dataset with another observation dimension, `column(steps + 1)` in each episode."""
    episodes = tuple(
        dataclasses.replace(
            e, observations=np.column_stack((e.observations, column(len(e) + 1))).astype(np.float32)
        )
        for e in dataset.episodes
    )
    spec = dataclasses.replace(dataset.spec, obs_dim=dataset.spec.obs_dim + 1)
    info = dataclasses.replace(dataset.info, obs_names=("x", "y", name))
    return Dataset(episodes, spec, info)


def set_reward(dataset, place, value):
    episode, row = place
    rewards = dataset.episodes[episode].rewards.copy()
    rewards[row] = value
    changed = dataclasses.replace(dataset.episodes[episode], rewards=rewards)
    return dataclasses.replace(
        dataset, episodes=(*dataset.episodes[:episode], changed, *dataset.episodes[episode + 1 :])
    )


def training_rewards(fitted, dataset):
    return torch.tensor(split_for(fitted.config, dataset, RngStreams(0)).train.transitions().reward)


@pytest.fixture(scope="module")
def plain():
    return fit(TOY)


def warns_of(fitted, text):
    return any(text in warning for warning in fitted.report.warnings)


def test_a_sensor_at_rest_costs_nothing_and_is_named(plain):
    rng = np.random.default_rng(0)
    noisy = fit(add_channel(TOY, lambda count: 0.5 + 1e-6 * rng.normal(size=count)))
    assert plain.trusted_horizon == noisy.trusted_horizon == 8
    assert noisy.report.one_step.nrmse == pytest.approx(plain.report.one_step.nrmse, rel=0.3)
    (channel,) = noisy.report.channels.constant
    assert channel.dimension == 2
    assert channel.std == pytest.approx(1e-6, rel=0.05)
    assert warns_of(noisy, "hardly vary count as constant: resting (1e-06 around 0.5)")
    # Where it has moved by 0.01, 10,000 deviations of its noise, the model says the same.
    here, moved = (noisy.predict([0.3, -0.2, z], [0.1]).observation for z in (0.5, 0.51))
    assert moved[:2] == pytest.approx(here[:2], abs=0.01)
    assert here[2] == pytest.approx(0.5, abs=0.02)


def test_a_column_that_never_changes_is_neither_an_error_nor_a_success(plain):
    still = fit(add_channel(TOY, lambda count: np.full(count, 150.0)))
    assert still.trusted_horizon == plain.trusted_horizon
    assert not warns_of(still, "hardly vary")  # nothing to decide
    # The error is that of the two dimensions that move, not of three.
    assert still.report.open_loop.error[0] == pytest.approx(plain.report.open_loop.error[0], rel=0.5)
    assert still.report.one_step.nrmse == pytest.approx(plain.report.one_step.nrmse, rel=0.3)
    assert still.report.one_step.nrmse_by_dimension[2] == 0.0


def test_members_dispute_far_from_zero_too():
    """Offset 1e4, changes of 1e-3: there s' in float32 has steps as large as the changes."""
    slow = make_dataset(episodes=40, step=lambda obs, action, rng, noise: obs + 1e-3 * action)
    moved = tuple(
        dataclasses.replace(e, observations=(1e4 + e.observations).astype(np.float32)) for e in slow.episodes
    )
    fitted = fit(dataclasses.replace(slow, episodes=moved), max_updates=120)
    rows = torch.tensor(moved[0].observations[:20]), torch.zeros(20, 1)
    posterior = fitted.model.predict(*rows)
    measures = held_out_measures(*rows, torch.zeros(20, dtype=torch.int64), torch.Generator())
    value = measures["ens_std"](posterior, *rows, rows[0], None)
    assert float(value.min()) > 0.01
    assert fitted.thresholds["ens_std"][0.95] > 0.01
    assert warns_of(fitted, "resolves these observation dimensions badly: 0 (changes of 0.0007 around 1e+04")


@pytest.mark.parametrize("value", [1e3, -1e5, 1e12])
def test_an_absurd_reward_is_named_and_spoils_nothing(plain, value):
    fitted = fit(set_reward(TOY, (7, 11), value))
    found = fitted.report.reward.outliers
    assert found.count == 1
    beyond = (value - found.largest if value > 0 else found.least - value) / (found.largest - found.least)
    assert warns_of(fitted, f"The reward {value:.4g} of episode 7, row 11 lies {beyond:.1g} times the range")
    # Errors of rewards are held against this deviation: were it the wrong one's, nothing would look wrong.
    rest = training_rewards(fitted, set_reward(TOY, (7, 11), value))
    rest = rest[rest.abs() < 100]
    assert fitted.reward_scale == pytest.approx(robust_scale(rest), rel=0.01)
    assert float(fitted.model.targets.std[-1]) == pytest.approx(float(rest.std(correction=0)), rel=0.01)
    assert fitted.trusted_horizon == plain.trusted_horizon
    state, action = np.array([0.3, -0.2]), np.array([0.1])
    assert float(fitted.predict(state, action).reward) == pytest.approx(-0.13 + 0.01, abs=0.3)


def test_a_reward_at_the_end_of_float32_does_not_stop_a_fit():
    fitted = fit(set_reward(TOY, (7, 11), 3e38), max_updates=80)
    assert fitted.report.reward.outliers.value == pytest.approx(3e38)
    assert np.isfinite(fitted.report.calibration.nll_raw)


def test_rewards_that_are_noise_around_their_mean_are_predicted_well_enough():
    rng = np.random.default_rng(0)
    episodes = tuple(
        dataclasses.replace(e, rewards=rng.normal(2.0, 1.0, len(e)).astype(np.float32)) for e in TOY.episodes
    )
    fitted = fit(dataclasses.replace(TOY, episodes=episodes))
    assert fitted.report.open_loop.reward_horizon == 8


def test_a_reward_of_one_and_rounding_has_the_scale_of_one():
    rng = np.random.default_rng(0)
    episodes = tuple(
        dataclasses.replace(e, rewards=(1 + 1e-6 * rng.normal(size=len(e))).astype(np.float32))
        for e in TOY.episodes
    )
    fitted = fit(dataclasses.replace(TOY, episodes=episodes), max_updates=80)
    assert fitted.reward_scale == pytest.approx(1.0)
    assert float(fitted.model.targets.std[-1]) == pytest.approx(1.0)


@pytest.mark.parametrize("is_terminated", [True, False])
def test_episodes_of_one_step_are_a_fit(is_terminated):
    rng = np.random.default_rng(0)
    episodes = tuple(
        Episode(
            observations=rng.normal(size=(2, 2)).astype(np.float32),
            actions=rng.uniform(-1, 1, (1, 1)).astype(np.float32),
            rewards=rng.normal(size=1).astype(np.float32),
            terminated=is_terminated,
            truncated=not is_terminated,
        )
        for _ in range(200)
    )
    spec = SpaceSpec(obs_dim=2, act_dim=1, act_low=(-1.0,), act_high=(1.0,))
    fitted = fit(Dataset(episodes, spec, DatasetInfo(name="bandit")), max_updates=80)
    ends = fitted.predict(np.zeros(2), np.zeros(1)).termination
    assert float(ends) > 0.9 if is_terminated else float(ends) == 0.0
