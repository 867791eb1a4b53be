import numpy as np
import pytest
import torch

from mbrl.dynamics.arrays import (
    HOLDOUT_ROWS,
    fit_normaliser,
    normalise,
    step_arrays,
    step_inputs,
    step_targets,
    termination_arrays,
    termination_edges,
    termination_inputs,
    thin,
)

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
