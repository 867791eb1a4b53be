"""Fits to observations that hold past frames and actions."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from mbrl.core.errors import DataError
from mbrl.core.history import History
from mbrl.core.rng import RngStreams
from mbrl.data.stacking.history import with_history
from mbrl.dynamics.artifact import DynamicsFacts, FittedDynamics, tensor_shapes
from mbrl.dynamics.fit import DynamicsFit, fit_dynamics
from mbrl.uncertainty.held_out import held_out_measures
from tests.data.stacking.test_history import delayed

from .systems import small_config

DELAY = 2


@pytest.fixture(scope="module")
def plain():
    return fit_dynamics(delayed(DELAY), small_config(), RngStreams(0), measures=held_out_measures)


@pytest.fixture(scope="module")
def stacked():
    return with_history(delayed(DELAY), DELAY + 1)


@pytest.fixture(scope="module")
def fitted(stacked):
    return fit_dynamics(stacked, small_config(), RngStreams(0), measures=held_out_measures)


def test_a_delayed_linear_machine_is_recovered_with_history_and_not_without(plain, fitted):
    assert fitted.report.one_step.nrmse < 0.005
    assert plain.report.one_step.nrmse > 0.2
    assert fitted.report.open_loop.nrmse[-1] < 0.02
    assert plain.report.open_loop.nrmse[-1] > 0.2


def test_figures_are_those_of_the_newest_frame(fitted, plain):
    assert fitted.model.frame_dim == 2
    assert fitted.model.obs_dim == 8
    assert len(fitted.report.one_step.nrmse_by_dimension) == 2
    assert fitted.report.channels.names == ("obs_0", "obs_1")
    assert fitted.report.one_step.nrmse_persistence == pytest.approx(
        plain.report.one_step.nrmse_persistence, rel=0.2
    )
    assert len(fitted.report.calibration.ece) == 3  # the reward is the last


def test_older_frames_and_actions_are_moved_up_exactly(fitted, stacked):
    rows = stacked.transitions()
    obs, action, after = (
        torch.tensor(values[:50]) for values in (rows.observation, rows.action, rows.next_observation)
    )
    posterior = fitted.model.predict(obs, action)
    members = posterior.mean.shape[0]
    assert torch.equal(posterior.mean[..., 2:], after[:, 2:].expand(members, -1, -1))
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(0))
    drawn = torch.addcmul(posterior.mean, posterior.variance.sqrt(), noise)
    assert torch.allclose(drawn[..., 2:], posterior.mean[..., 2:], rtol=0.0, atol=1e-12)
    mean, variance, _, _ = fitted.model.predict_member(obs, action, torch.ones(50, dtype=torch.int64))
    assert torch.allclose(mean, posterior.mean[1], atol=1e-5)
    assert torch.allclose(variance, posterior.variance[1], rtol=1e-4)
    assert bool((posterior.variance > 0).all())
    path = fitted.rollout(obs[0].numpy(), rows.action[:3], particles=10)
    assert path.observation.shape == (3, 8)
    assert path.observation[0, 6:].tolist() == pytest.approx([rows.action[0, 0], 0.0], abs=1e-6)


def test_measures_of_what_members_dispute_are_numbers(fitted):
    for quantiles in fitted.thresholds.values():
        assert all(np.isfinite(value) for value in quantiles.values())


def test_the_file_of_a_fit_says_its_history(fitted):
    meta, tensors = fitted.to_tensors()
    facts = DynamicsFacts.model_validate_json(json.dumps(meta), strict=True)
    assert facts.history == History(3, 2)
    assert tensor_shapes(facts, tensors) == {name: tuple(value.shape) for name, value in tensors.items()}
    loaded = FittedDynamics.from_tensors(facts, tensors)
    obs, action = torch.ones(1, 8), torch.ones(1, 1)
    assert torch.equal(loaded.model.predict(obs, action).mean, fitted.model.predict(obs, action).mean)
    for wrong in ({"frames": 0, "actions": 0}, {"frames": 2}, None):
        try:
            other = DynamicsFacts.model_validate_json(json.dumps(meta | {"history": wrong}), strict=True)
        except ValidationError:
            assert wrong == {"frames": 0, "actions": 0}
            continue
        assert tensor_shapes(other, tensors) != {name: tuple(value.shape) for name, value in tensors.items()}


def test_observations_that_hold_another_history_are_refused(stacked):
    info = dataclasses.replace(stacked.info, history=History(1, 6))
    with pytest.raises(DataError, match="its older part is not"):
        DynamicsFit(dataclasses.replace(stacked, info=info), small_config(), RngStreams(0))
