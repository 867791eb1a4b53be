import numpy as np
import pytest

from mbrl.report.kit.table import TERMINAL_WIDTH, to_text
from mbrl.report.kit.wording import has_ends
from mbrl.report.run.data_tables import inspection_tables, verdict
from mbrl.report.run.dynamics_tables import (
    correlation_table,
    dynamics_tables,
    far,
    near,
    step_table,
    trust_message,
    warning_messages,
)
from mbrl.report.run.evaluation_tables import evaluation_table
from tests.report.conftest import interval, make_dynamics_report


def widest(text):
    return max(map(len, text.splitlines()))


def cells(table):
    return {row[0]: row[1] for row in table.rows}


def test_inspection_tables_hold_the_numbers_and_fit(doctor_report):
    text = to_text(inspection_tables(doctor_report))
    assert widest(text) <= TERMINAL_WIDTH
    for piece in ("1,234", "torque/left", "25.0 %", "A jump.", "not available: a single episode"):
        assert piece in text


@pytest.mark.parametrize(("severity", "tone"), [("error", "bad"), ("warning", "caution"), ("note", "good")])
def test_verdict_follows_the_worst_finding(doctor_report, severity, tone):
    finding = doctor_report.findings[0].model_copy(update={"severity": severity})
    assert verdict(doctor_report.model_copy(update={"findings": (finding,)})).tone == tone


def test_report_without_stats_shows_its_findings_alone(doctor_report):
    tables = inspection_tables(doctor_report.model_copy(update={"stats": None}))
    assert [table.caption for table in tables] == ["Findings on toy"]


def test_dynamics_tables_fit_and_say_what_is_missing(dynamics_report):
    text = to_text(dynamics_tables(dynamics_report, names=["angle", "speed"]))
    assert widest(text) <= TERMINAL_WIDTH
    for piece in ("angle", "not available: never fires", "not available: none held out", "(no interval:"):
        assert piece in text


def test_step_table_keeps_every_horizon_and_its_interval(dynamics_report):
    rows = step_table(dynamics_report).rows
    assert [row[0] for row in rows] == [1, 2, 3, 4]
    assert rows[2][1] == "0.200 [0.100, 0.290]"
    assert rows[3][1] == "0.500 (no interval: a single value has no spread)"
    assert "[" not in to_text([correlation_table(dynamics_report)]).split("knn")[1]


def test_an_interval_without_width_is_no_interval(dynamics_report):
    same = dynamics_report.correlations["ens_std"].model_copy(update={"far_low": 0.4, "far_high": 0.4})
    assert has_ends(near(same, 100))
    assert not has_ends(far(same, 10))


def test_trusted_horizon_in_words(dynamics_report):
    assert "trusted for 3 steps" in trust_message(dynamics_report).text
    assert trust_message(dynamics_report).tone == "good"
    none = trust_message(make_dynamics_report(horizon=0))
    assert none.tone == "bad"
    assert "Do not roll out" in none.text
    assert [m.text for m in warning_messages(dynamics_report)] == ["Intervals miss their level."]


def test_evaluation_table_gives_returns_and_what_is_missing():
    values = {
        "task": "toy",
        "seed": 3,
        "is_deterministic": True,
        "episode_returns": [1.0, 2.0, 6.0],
        "episode_lengths": [10, 20, 30],
        "terminated": [True, False, False],
        "return_interval": interval(3.0).to_json(),
        "score_interval": None,
        "seconds": None,
    }
    found = cells(evaluation_table(values))
    assert found["least, median, largest return"] == "1, 2, 6"
    assert found["mean length, steps"] == np.mean(values["episode_lengths"])
    assert found["episodes that terminated"] == "33.3 %"
    assert "no reference scores" in found["normalised score"]
    assert "no interval" in found["mean return"]
