import json
import sys
from pathlib import Path

import pytest

from tests.scripts.loading import ROOT, load_script


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts" / "measure"), *sys.path])
    return load_script("measure/planning")


def test_the_table_holds_planned_against_unplanned_seed_by_seed(script, tmp_path: Path):
    # Gains of 2 and 6: 4 on average, deviation sqrt(8), over sqrt(2).
    for seed, (alone, planned, is_open) in enumerate(((10.0, 12.0, False), (20.0, 26.0, True))):
        cell = script.Cell(script.Piece("hopper/medium", "bc", seed), "rollout")
        row = {
            "log": cell.piece.log, "method": "bc", "planner": cell.planner, "policy_returns": [alone],
            "returns": [planned - 1.0, planned + 1.0], "gate": {"is_open": is_open},
        }  # fmt: skip
        path = cell.path(tmp_path)
        assert path.name == f"hopper-medium.bc.rollout.s{seed}.json"
        path.write_text(json.dumps(row))
    assert "| hopper/medium | bc | rollout | 15.0 | 19.0 | +4.0 ± 2.0 | 1 of 2 | 2 |" in script.table(
        tmp_path
    )
