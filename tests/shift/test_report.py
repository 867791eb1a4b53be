import dataclasses
import json

import pytest

from mbrl.shift.report import (
    DRIFT,
    EDGE_GAP,
    FLAGGED_SHARE,
    HUGE_GAP,
    MEASURED,
    MODEL_ERROR,
    MODEL_ERROR_RATIO,
    OUTSIDE_SHARE,
    UNCERTAINTY_RATIO,
    ShiftReport,
    alarms_by_kind,
    alarms_of,
)

CALM = ShiftReport(
    step=100,
    updates=100,
    out_of_support_share=OUTSIDE_SHARE,
    knn_share=OUTSIDE_SHARE,
    rollout_uncertainty_ratio=UNCERTAINTY_RATIO,
    rollout_flagged_share=FLAGGED_SHARE,
    value_gap=4.0,
    value_gap_low=-5.0,
    value_gap_high=20.0,
    value_rank_correlation=0.0,
    value_drift=DRIFT,
    value_drift_since=75,
    edge_share=1.0,
    edge_value_gap=EDGE_GAP,
    model_error=0.1,
    model_error_near_policy=0.1 * MODEL_ERROR_RATIO,
    model_error_horizon=3,
)


def test_at_the_thresholds_nothing_rings() -> None:
    assert alarms_of(CALM) == []


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("support", {"out_of_support_share": 0.5}, ["50% of the policy's actions", "almost never", "1%"]),
        ("support", {"knn_share": 0.75}, ["75% of the policy's actions", "far from any logged row"]),
        ("support", {"out_of_support_share": 0.5, "knn_share": 0.75}, ["50%", "75% of them"]),
        ("rollout", {"rollout_uncertainty_ratio": 3.25}, ["3.2 times as unsure"]),
        ("rollout", {"rollout_flagged_share": 0.5}, ["at 50% of the steps"]),
        ("value", {"value_gap": 20.5}, ["20.5 deviations above", "no policy more than 20.0"]),
        ("value", {"value_gap": -5.5}, ["5.5 deviations below", "more than 5.0"]),
        ("value", {"value_gap": HUGE_GAP + 1}, ["promise 11.0 deviations more"]),
        ("value", {"value_gap": HUGE_GAP + 1, "value_gap_low": None, "value_gap_high": None}, ["promise"]),
        ("rank", {"value_rank_correlation": -0.5}, ["other way round", "-0.50"]),
        ("drift", {"value_drift": -0.5}, ["-50% since update 75"]),
        ("edge", {"edge_value_gap": 2.5}, ["100% of the imagined states", "2.5 deviations"]),
        ("model", {"model_error_near_policy": 0.3}, ["0.3 deviations after 3 steps", "0.1"]),
    ],
)
def test_each_alarm_rings_alone_and_says_what_to_do(
    kind: str, change: dict[str, float], words: list[str]
) -> None:
    alarms = alarms_by_kind(dataclasses.replace(CALM, **change))
    assert list(alarms) == [kind]
    assert "Remedy:" in alarms[kind]
    assert all(word in alarms[kind] for word in words), alarms[kind]


def test_a_model_that_is_good_everywhere_may_be_better_elsewhere() -> None:
    calm = dataclasses.replace(CALM, model_error=1e-5, model_error_near_policy=MODEL_ERROR)
    assert alarms_of(calm) == []
    assert len(alarms_of(dataclasses.replace(calm, model_error_near_policy=MODEL_ERROR + 0.01))) == 1


def test_values_may_move_while_the_training_goes_on() -> None:
    assert alarms_of(dataclasses.replace(CALM, step=99, value_drift=5.0)) == []


def test_an_empty_report_is_silent_and_plain() -> None:
    report = ShiftReport(step=1, updates=2)
    assert alarms_of(report) == []
    assert report.metrics() == {}
    values = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert {*MEASURED, "rows", "why_not", "alarms"} <= set(values)
    assert values["alarms"] == []


def test_metrics_and_json_carry_what_was_measured() -> None:
    report = dataclasses.replace(CALM, knn_share=None, value_rank_correlation=-0.5, rows={"states": 7})
    metrics = report.metrics()
    assert metrics["shift/value_gap"] == 4.0
    assert "shift/knn_share" not in metrics
    values = report.to_json()
    assert values["rows"] == {"states": 7}
    assert values["alarms"] == alarms_of(report)
    assert len(values["alarms"]) == 1
