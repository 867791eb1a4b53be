"""Fits of real and simulated robots beat the trivial models, with a small budget."""

import pytest

from mbrl.core.rng import RngStreams
from mbrl.data.open import open_dataset
from mbrl.dynamics.config import AssessmentConfig, DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.uncertainty.held_out import held_out_measures
from tests.data.importing.qube import import_qube

CONFIG = DynamicsConfig(
    members=3,
    elites=3,
    hidden=(128, 128, 128),
    max_updates=1500,
    termination={"hidden": (64, 64), "max_updates": 300},
    assessment=AssessmentConfig(segments=100, particles=50, max_rows=4000, bootstrap_draws=50),
)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("robot", ["hopper", "quanser_qube"])
def test_errors_lie_below_persistence_and_linear(robot, shared_data, tmp_path):
    dataset = (
        open_dataset(shared_data / "sim" / "hopper" / "medium-replay-v0")
        if robot == "hopper"
        else import_qube(shared_data, tmp_path)
    )
    report = fit_dynamics(dataset, CONFIG, RngStreams(0), measures=held_out_measures).report
    assert report.one_step.nrmse < min(report.one_step.nrmse_persistence, report.one_step.nrmse_linear)
    last = report.open_loop
    assert last.steps[-1] == 25
    if robot == "hopper":  # the pendulum is unstable without its controller: 25 steps take a full fit
        assert last.nrmse[-1] < min(last.nrmse_persistence[-1], last.nrmse_linear[-1])
    assert report.calibration.coverage(0.9) == pytest.approx(0.9, abs=0.02)
