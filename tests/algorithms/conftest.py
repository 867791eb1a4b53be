import pytest

from mbrl.core.rng import RngStreams
from mbrl.dynamics.artifact import FittedDynamics
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.uncertainty.held_out import held_out_measures
from tests.algorithms.toy import hand_dynamics
from tests.run.toy import TINY_DYNAMICS, make_dataset


@pytest.fixture(scope="session")
def fitted() -> FittedDynamics:
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    return fit_dynamics(make_dataset(), config, RngStreams(0), measures=held_out_measures)


@pytest.fixture
def toy(fitted: FittedDynamics) -> FittedDynamics:
    return hand_dynamics(fitted)
