"""Whatever a yaml holds, it costs no time, no memory, runs no code; the message says what is wrong."""

import sys
from pathlib import Path

import pytest

from tests.hostile import documents
from tests.hostile.case import Case, judge, run_case

CASES = documents.cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_hostile_document_is_refused_clearly(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "planted_by_a_document.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    outcome = run_case(case, inputs)
    assert judge(case, outcome) == [], outcome.message
    assert "planted_by_a_document" not in sys.modules
    # At once: no run has begun, unless the simulator itself is what was asked for.
    assert not (inputs / "written").exists() or case.about == "Task 'pendulum'"


def test_there_are_many_cases_and_each_has_a_name():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 90
