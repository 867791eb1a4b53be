import numpy as np
import pytest
import torch

from mbrl.core.rng import RngStreams
from mbrl.data.normaliser import fit_moments
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.rollouts.generate import Imagination
from mbrl.shift.model_probe import MAX_HORIZON, ModelProbe
from mbrl.uncertainty.held_out import held_out_measures
from mbrl.uncertainty.measures import StepContext, ens_std
from mbrl.uncertainty.penalty import CAP
from tests.run.toy import TINY_DYNAMICS, make_dataset


def test_what_does_not_depend_on_the_policy_is_measured_on_held_out_rows() -> None:
    dataset = make_dataset()
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    fitted = fit_dynamics(dataset, config, RngStreams(0), measures=held_out_measures)
    imagination = Imagination(fitted.model, fitted.termination, ens_std, threshold=0.25)
    rows = dataset.transitions()
    probe = ModelProbe.make(
        fitted, imagination, train=rows, holdout=dataset, generator=torch.Generator().manual_seed(0)
    )
    obs, action = torch.tensor(rows.observation), torch.tensor(rows.action)
    with torch.no_grad():
        posterior = fitted.model.predict(obs, action)
    uncertainty = ens_std(posterior, StepContext(obs=obs, action=action, reference=None))
    by_hand = float(uncertainty.double().clamp_max(CAP).mean())
    assert probe.baseline == pytest.approx(by_hand, rel=0.05)  # of at most a thousand rows, evenly spread
    assert probe.flag_level == 0.25
    assert probe.imagination.threshold == float("inf")  # uncertainty is counted, and ends no rollout
    assert probe.horizon == min(max(1, fitted.report.trusted_horizon), MAX_HORIZON)
    assert probe.error.shape[0] == len(probe.segments)
    np.testing.assert_allclose(probe.action_std, fit_moments(rows.action)[1])
