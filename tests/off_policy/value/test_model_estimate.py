import dataclasses
import math

import numpy as np
import pytest

from mbrl.core.estimates import Estimand, Estimate
from mbrl.off_policy.value.model_estimate import MAX_DISAGREEMENT_SHARE, ModelEstimate, model_diagnostics

VALUES = np.array([[1.0, 3.0, 2.0], [2.0, 4.0, 3.0]])


def found(**changes) -> ModelEstimate:
    """Two members, three starts, two steps."""
    fields = {
        "values": VALUES,
        "tails": np.zeros((2, 3)),
        "terminated": np.zeros((2, 3)),
        "disagreement": np.array([0.1, 0.2]),
        "clip_rate": np.array([0.0, np.nan]),
        "stopped": np.array([0, 1]),
        "alive_share": np.ones(2),
        "disagreement_share": 0.02,
        "rollouts": 6,
        "tail_bound": 0.0,
        "estimand": Estimand(0.9, horizon=2),
    }
    return ModelEstimate(**{**fields, **changes})


def test_an_alarm_where_the_model_promises_what_the_fitted_value_denies():
    own = found().estimate()

    def reference(point: float, se: float) -> Estimate:
        return dataclasses.replace(own, name="fqe", point=point, se=se)

    for shift, is_alarm in ((2.1, True), (1.9, False)):
        spread = math.hypot(own.se, 0.3)
        estimate = found().estimate(reference(own.point - shift * spread, 0.3))
        assert ("exploitation_alarm" in estimate.flags) == is_alarm
        assert estimate.valid  # an alarm does not condemn: families in conflict do
        assert model_diagnostics(estimate)["exploitation_alarm"] == is_alarm


def test_fitted_values_for_a_part_of_it_make_it_a_hybrid():
    half = found(tails=np.full((2, 3), 1.25))
    assert half.tail_share == pytest.approx(0.5)
    assert half.estimate().family == "hybrid"
    assert found().estimate().family == "model"
    assert found(values=np.zeros((2, 3)), tails=np.ones((2, 3))).tail_share == math.inf
    assert found(values=np.zeros((2, 3))).tail_share == 0.0


def test_steps_beyond_the_data_take_it_out_of_verdicts():
    share = MAX_DISAGREEMENT_SHARE
    beyond = found(disagreement_share=share).estimate()
    assert beyond.flags == ("leaves_the_data",)
    assert not beyond.valid
    assert found(disagreement_share=0.9 * share).estimate().valid
    assert "tail_left_out" in found(tail_bound=0.3).estimate().flags


def test_the_report_is_plain_values_of_the_rollouts():
    fields = model_diagnostics(found().estimate())
    assert fields["stopped"] == [0, 1]
    assert fields["clip_rate"] == [0.0, None]
    assert fields["model_rollouts"] == 6
    details = found(estimand=Estimand(0.9, horizon=2, normalised=True)).estimate().details
    np.testing.assert_allclose(details["rollout_returns"], 0.1 * VALUES)
    assert "rollout_returns" not in found(rollouts=12).estimate().details  # means of two are other things
