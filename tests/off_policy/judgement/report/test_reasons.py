import json

import pytest

from mbrl.off_policy.judgement.conclusions import conclude
from mbrl.off_policy.judgement.report.concluded import Agreement, NextData
from mbrl.off_policy.judgement.report.measured import Backtest, Baseline, Diagnostics, LoggedData, Risk
from tests.off_policy.reports import paired, report

SECTIONS = {
    "data": LoggedData,
    "diagnostics": Diagnostics,
    "baseline": Baseline,
    "risk": Risk,
    "agreement": Agreement,
    "next_data": NextData,
}


@pytest.mark.parametrize("candidates", [1, 3])
@pytest.mark.parametrize("has_backtest", [True, False])
def test_every_field_is_there_and_every_null_has_a_reason(candidates: int, has_backtest: bool) -> None:
    measured = report((2.0, 3.0))
    measured = measured if has_backtest else measured.model_copy(update={"backtest": None})
    found = conclude(measured, reasons={"risk": "nobody asked"}, candidates=candidates)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    nulls = set() if has_backtest else {"backtest"}
    for section, kind in {**SECTIONS, **({"backtest": Backtest} if has_backtest else {})}.items():
        assert values[section].keys() == kind.model_fields.keys()
        nulls |= {f"{section}.{key}" for key, value in values[section].items() if value is None}
    assert found.why_not.keys() == {path for path in nulls if not path.endswith(".why_not")}
    assert all(found.why_not.values())
    assert found.why_not["risk.p_violation"] == "nobody asked"
    assert found.why_not["risk.threshold"] == "the event is not about the return"  # nearer than the section's
    assert (found.verdict.corrected is not None) == (candidates > 1)


def test_a_section_without_a_proposal_gives_its_own_reason() -> None:
    found = conclude(paired(report((2.0, 3.0), (2.0, 3.0)), pdwis=(0.1, 1.0), fqe=(0.1, 1.0)))
    assert found.verdict.verdict == "go"
    assert found.why_not["next_data.episodes"] == found.next_data.why_not
    assert found.why_not["next_data.shrink"] == found.next_data.why_not


def test_reasons_of_what_was_measured_are_kept() -> None:
    measured = report().model_copy(update={"why_not": {"diagnostics.ess_t": "the policy is deterministic"}})
    assert conclude(measured).why_not["diagnostics.ess_t"] == "the policy is deterministic"
    assert conclude(conclude(measured)).why_not == conclude(measured).why_not
