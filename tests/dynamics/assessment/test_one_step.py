import dataclasses

import numpy as np
import pytest
import torch

from mbrl.dynamics.assessment.baselines import LinearModel
from mbrl.dynamics.assessment.one_step import measure_one_step, measure_reward, predict_held_out
from mbrl.dynamics.ensemble import DynamicsEnsemble
from mbrl.nets.normaliser import Normaliser
from tests.dynamics.systems import linear_ensemble, make_dataset

OFFSETS = np.array([-0.1, 0.5])


def scaled(model, scale):
    """The same network in other target units: it predicts `scale` times as much."""
    model = DynamicsEnsemble(
        model.net,
        model.bounds,
        inputs=model.inputs,
        targets=Normaliser(torch.zeros(3), torch.tensor(scale)),
        temperature=torch.tensor([9.0, 9.0, 9.0]),
    )
    return model.requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def rows():
    return make_dataset(episodes=30, steps=50, noise=0.0).transitions()


def test_predictions_are_normalised_and_without_temperature(rows):
    model = scaled(linear_ensemble(offsets=OFFSETS, noise=0.2), [2.0, 2.0, 1.0])
    steps = predict_held_out(model, rows)
    assert steps.std.numpy()[..., :2] == pytest.approx(np.full((2, len(rows), 2), 0.2), rel=1e-5)
    delta = rows.next_observation.astype(float) - rows.observation
    assert steps.target.numpy()[:, :2] == pytest.approx(delta / 2, abs=1e-6)
    assert steps.target.numpy()[:, 2] == pytest.approx(rows.reward)
    # The network predicts the change itself; its target is half of it.
    expected = delta + OFFSETS.mean() - delta / 2
    assert steps.residual().numpy()[:, :2] == pytest.approx(expected, abs=1e-5)


def test_errors_one_step_ahead_by_hand(rows):
    model = linear_ensemble(offsets=OFFSETS)
    steps = predict_held_out(model, rows)
    report = measure_one_step(model, LinearModel.fit(rows), steps, rows=rows, train=rows)
    delta = rows.next_observation.astype(float) - rows.observation
    moved = np.sqrt((delta**2).mean(0))
    assert report.rmse == pytest.approx([0.2, 0.2], rel=1e-4)  # that of the average: (-0.1 + 0.5) / 2
    assert report.rmse_normalised == pytest.approx([0.2, 0.2], rel=1e-4)
    assert report.persistence_normalised == pytest.approx(moved, rel=1e-4)
    assert report.linear_normalised == pytest.approx([0.0, 0.0], abs=1e-4)
    std = rows.observation.astype(float).std(0)
    assert report.nrmse == pytest.approx((0.2 / std).mean(), rel=1e-4)
    assert report.nrmse_persistence == pytest.approx((moved / std).mean(), rel=1e-4)
    reward = rows.observation[:, 0] + rows.action[:, 0] - rows.reward.astype(float)
    expected = (2 * (OFFSETS**2).mean() + (reward**2).mean()) / 3
    assert report.mse_raw == pytest.approx(expected, rel=1e-4)


def test_errors_are_in_the_units_of_the_targets(rows):
    model = scaled(linear_ensemble(), [1.0, 4.0, 10.0])
    steps = predict_held_out(model, rows)
    report = measure_one_step(model, LinearModel.fit(rows), steps, rows=rows, train=rows)
    assert report.rmse[1] == pytest.approx(4 * report.rmse_normalised[1], rel=1e-5)
    reward = measure_reward(model, steps, rows)
    expected = 10 * (rows.observation[:, 0] + rows.action[:, 0]) - rows.reward
    assert reward.rmse == pytest.approx(np.sqrt((expected.astype(float) ** 2).mean()), rel=1e-4)
    assert reward.rmse_normalised == pytest.approx(reward.rmse / 10, rel=1e-5)
    assert reward.mean == pytest.approx(rows.reward.mean(), rel=1e-5)
    assert reward.share_zero == 0.0


def test_constant_dimensions_do_not_dilute_the_error(rows):
    still = np.full((len(rows), 1), 7.0, np.float32)
    wide = dataclasses.replace(
        rows,
        observation=np.concatenate((rows.observation[:, :1], still), 1),
        next_observation=np.concatenate((rows.next_observation[:, :1], still), 1),
    )
    model = linear_ensemble(offsets=OFFSETS)
    report = measure_one_step(
        model, LinearModel.fit(wide), predict_held_out(model, wide), rows=wide, train=wide
    )
    std = rows.observation[:, 0].astype(float).std()
    assert report.nrmse == pytest.approx(report.rmse[0] / std, rel=1e-6)
    assert report.nrmse_by_dimension == (pytest.approx(report.rmse[0] / std, rel=1e-6), 0.0)
