import pytest

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.dynamics.config import DynamicsConfig
from mbrl.dynamics.fit import fit_dynamics
from mbrl.dynamics.termination import NeverTerminates
from mbrl.off_policy.value.evaluation_model import EvaluationModel
from mbrl.uncertainty.held_out import held_out_measures
from tests.run.toy import TINY_DYNAMICS, make_dataset


def test_a_fit_becomes_a_model_with_its_stored_threshold():
    config = DynamicsConfig.model_validate(TINY_DYNAMICS)
    dataset = make_dataset()
    fitted = fit_dynamics(dataset, config, RngStreams(0), measures=held_out_measures)
    model = EvaluationModel.of(fitted)
    assert model.threshold == fitted.thresholds["ens_std"][0.99]
    assert model.limit == fitted.thresholds["ens_std"][1.0] > model.threshold
    assert model.dataset_hash == dataset.content_hash
    assert model.termination is fitted.termination
    rule = NeverTerminates()
    assert EvaluationModel.of(fitted, termination=rule).termination is rule
    with pytest.raises(ConfigError, match=r"0\.42 quantile"):
        EvaluationModel.of(fitted, quantile=0.42)
