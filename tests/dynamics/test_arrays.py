import dataclasses

import numpy as np
import pytest
import torch

from mbrl.core.history import History
from mbrl.core.types import Episode, SpaceSpec
from mbrl.data.dataset import Dataset, DatasetInfo, Transitions
from mbrl.dynamics.arrays import (
    HOLDOUT_ROWS,
    choice_columns,
    fit_normaliser,
    fit_target_normaliser,
    normalise,
    step_arrays,
    step_inputs,
    step_targets,
    termination_arrays,
    termination_edges,
    termination_inputs,
    thin,
)
from mbrl.dynamics.linear_base import fit_linear_base

from .systems import make_dataset


@pytest.fixture(scope="module")
def rows():
    return make_dataset(episodes=8, steps=20, wall=1.5).transitions()


def test_inputs_and_targets_are_what_the_members_map(rows):
    assert np.array_equal(step_inputs(rows)[5], [*rows.observation[5], *rows.action[5]])
    delta = rows.next_observation[5] - rows.observation[5]
    assert np.array_equal(step_targets(rows)[5], [*delta, rows.reward[5]])


def test_the_observation_that_a_head_encodes_comes_last(rows):
    seen = termination_inputs(rows, reads_successor=True)[3]
    assert np.array_equal(seen, [*rows.observation[3], *rows.action[3], *rows.next_observation[3]])
    blind = termination_inputs(rows, reads_successor=False)[3]
    assert np.array_equal(blind, [*rows.action[3], *rows.observation[3]])


def test_normalised_rows_have_mean_0_and_deviation_1(rows):
    inputs = step_inputs(rows)
    found = normalise(inputs, fit_normaliser(inputs)).double().numpy()
    assert found.mean(0) == pytest.approx(np.zeros(3), abs=1e-5)
    assert found.std(0) == pytest.approx(np.ones(3), abs=1e-5)
    assert np.array_equal(inputs, step_inputs(rows))  # the array itself is left alone


def test_both_parts_are_scaled_by_the_training_rows(rows):
    train, holdout = rows.select(np.arange(50)), rows.select(np.arange(50, len(rows)))
    inputs, targets = fit_normaliser(step_inputs(train)), fit_normaliser(step_targets(train))
    arrays = step_arrays(train, holdout, inputs=inputs, targets=targets)
    assert torch.equal(arrays.holdout_targets, normalise(step_targets(holdout), targets))
    assert arrays.targets.double().std(0, correction=0).tolist() == pytest.approx([1.0] * 3, abs=1e-5)


def column(values):
    return np.asarray(values, np.float32)[:, None]


def with_columns(rows, before, after):
    return dataclasses.replace(
        rows,
        observation=np.concatenate((rows.observation, *map(column, before)), 1),
        next_observation=np.concatenate((rows.next_observation, *map(column, after)), 1),
    )


def test_targets_without_a_signal_have_a_scale_of_their_own(rows):
    count, rng = len(rows), np.random.default_rng(0)
    clock = np.arange(count) / 1000
    resting = 0.5 + 1e-6 * rng.normal(size=(2, count))
    parameter = rng.choice([0.02, 0.04], count)
    wide = with_columns(rows, (clock, resting[0], parameter), (clock + 0.001, resting[1], parameter))
    std = fit_target_normaliser(wide).std
    plain = fit_target_normaliser(rows).std
    assert torch.equal(std[:2], plain[:2])
    assert std[2] == pytest.approx(0.001, rel=1e-3)  # the same step each time: its size
    assert std[3] == 1.0  # the scale of the observation that counts as constant
    assert std[4] == pytest.approx(0.01, rel=0.05)  # never changes in an episode: that of the observation
    assert std[5] == plain[2]


@pytest.mark.parametrize(("reward", "scale"), [(0.0, 1.0), (-1e-4, 1e-4), (3.0 + 1e-7 * np.arange(5), 3.0)])
def test_a_reward_that_is_always_the_same_has_the_scale_of_its_size(rows, reward, scale):
    rewards = np.resize(np.asarray(reward, np.float32), len(rows))
    found = fit_target_normaliser(dataclasses.replace(rows, reward=rewards))
    assert float(found.std[-1]) == pytest.approx(scale, rel=1e-6)


def test_an_absurd_reward_is_put_on_the_fence_beyond_the_others_in_both_parts(rows):
    train, holdout = rows.select(np.arange(50)), rows.select(np.arange(50, len(rows)))
    reward = train.reward.copy()
    reward[3] = 1e20
    bad = dataclasses.replace(train, reward=reward)
    scales = [fit_target_normaliser(part) for part in (train, bad)]
    assert float(scales[1].std[-1]) == pytest.approx(float(scales[0].std[-1]), rel=0.03)
    other = dataclasses.replace(holdout, reward=np.full(len(holdout), -3e20, np.float32))
    arrays = step_arrays(bad, other, inputs=fit_normaliser(step_inputs(bad)), targets=scales[1])
    raw, rest = scales[1].inverse(arrays.targets)[:, -1].numpy(), np.delete(train.reward, 3)
    # Of 50 rewards two are left out at each end; the fences lie five ranges of the rest beyond it.
    low, high = np.sort(reward)[[2, -3]].astype(np.float64)
    assert raw[3] == pytest.approx(high + 5 * (high - low), rel=1e-4)
    assert np.delete(raw, 3) == pytest.approx(rest, rel=1e-4, abs=1e-5)
    held_out = scales[1].inverse(arrays.holdout_targets)[:, -1].numpy()
    assert held_out == pytest.approx(low - 5 * (high - low), rel=1e-4)


def test_flags_are_the_targets_of_a_head(rows):
    inputs = fit_normaliser(termination_inputs(rows, reads_successor=True))
    arrays = termination_arrays(rows, rows, inputs=inputs, reads_successor=True)
    assert arrays.targets[:, 0].tolist() == rows.terminated.astype(float).tolist()
    assert rows.terminated.any()


def test_thinned_rows_are_evenly_spaced(rows):
    assert thin(rows, len(rows)) is rows
    few = thin(rows, 5)
    places = [round(k * (len(rows) - 1) / 4 - 0.5 + 1e-9) for k in range(5)]
    assert few.reward.tolist() == rows.reward[places].tolist()
    assert len(rows) < HOLDOUT_ROWS


def test_half_of_the_edges_are_quantiles_of_the_terminated_rows():
    inputs = torch.cat([torch.full((101, 1), 7.0), torch.arange(101.0)[:, None]], 1)
    ends = np.arange(101) >= 90
    edges = termination_edges(inputs, ends, obs_dim=1, bins=5)[:, 0]
    assert edges.tolist() == [0.0, 50.0, 90.0, 95.0, 100.0, 100.0]
    assert termination_edges(inputs, ends, obs_dim=2, bins=0).shape == (1, 2)


def choice_rows(count: int = 400) -> Transitions:
    """Choices of which one is taken once and another never, and what they add to a state of two numbers."""
    rng = np.random.default_rng(0)
    index = rng.integers(2, size=count)
    index[7] = 2
    action = np.eye(4, dtype=np.float32)[index]
    obs = rng.normal(scale=5.0, size=(count + 1, 2)).astype(np.float32)
    step = np.array([[1.0, 0.0], [0.0, -1.0], [3.0, 3.0], [0.0, 0.0]], dtype=np.float32)
    episodes = [
        Episode(
            np.stack([obs[k], obs[k] + step[index[k]]]),
            action[k : k + 1],
            np.zeros(1, np.float32),
            False,
            True,
        )
        for k in range(count)
    ]
    return Dataset(tuple(episodes), SpaceSpec.discrete(2, 4), DatasetInfo(name="x")).transitions()


def test_one_hot_actions_pass_as_they_are():
    rows = choice_rows()
    columns = choice_columns(rows, None, obs_at=0, act_at=2)
    inputs = fit_normaliser(step_inputs(rows), choices=columns)
    assert inputs.mean[2:].tolist() == [0.0] * 4
    assert inputs.std[2:].tolist() == [1.0] * 4
    assert inputs.std[:2].tolist() == pytest.approx([5.0, 5.0], rel=0.1)
    assert normalise(step_inputs(rows), inputs)[:, 2:].numpy().tolist() == rows.action.tolist()


def test_past_choices_of_a_history_pass_too():
    rows = choice_rows()
    wide = dataclasses.replace(rows, observation=np.concatenate([rows.observation, rows.action], 1))
    found = choice_columns(wide, History(1, 1), obs_at=0, act_at=6)
    assert found == [slice(6, 10), slice(2, 6)]
    assert choice_columns(wide, History(1, 1), obs_at=4, act_at=0) == [slice(0, 4), slice(6, 10)]


def test_the_linear_base_of_choices_is_exact_although_they_sum_to_1():
    rows = choice_rows()
    inputs = fit_normaliser(step_inputs(rows), choices=choice_columns(rows, None, obs_at=0, act_at=2))
    targets = fit_target_normaliser(rows)
    base = fit_linear_base(step_arrays(rows, rows, inputs=inputs, targets=targets))
    found = base(normalise(step_inputs(rows), inputs)) * targets.std + targets.mean
    assert found[:, :2].numpy() == pytest.approx(rows.next_observation - rows.observation, abs=2e-3)
    assert base.weight[5].abs().max() == 0.0  # of a choice that nobody took nothing is claimed
