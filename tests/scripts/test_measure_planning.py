import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mbrl.core.errors import ConfigError
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
    row = "| hopper/medium | bc | rollout | 15.0 | 19.0 | +4.0 ± 2.0 | 1 of 2 | {} |"
    assert row.format("0 of 2 | 2") in script.table(tmp_path)
    about = {"log": "hopper/medium", "method": "bc", "seed": 2, "planner": "rollout"}
    (tmp_path / "hopper-medium.bc.rollout.s2.json").write_text(json.dumps({**about, "refused": "why"}))
    assert row.format("1 of 3 | 3") in script.table(tmp_path)


def test_a_planner_that_refuses_every_seed_is_in_the_table(script, tmp_path: Path):
    about = {"log": "hopper/medium", "method": "iql", "seed": 0, "planner": "mppi"}
    (tmp_path / "hopper-medium.iql.mppi.s0.json").write_text(json.dumps({**about, "refused": "why"}))
    assert "| hopper/medium | iql | mppi | - | - | - | - | 1 of 1 | 1 |" in script.table(tmp_path)


def test_a_refusal_is_a_result(script, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise ConfigError("did not settle")

    monkeypatch.setattr(script, "train_policy_stage", lambda resolved, workspace: SimpleNamespace(path="run"))
    monkeypatch.setattr(script.mbrl, "plan", refuse)
    cell = script.Cell(script.Piece("pendulum-mixed", "bc", 0), "mppi")
    workspace = SimpleNamespace(store=SimpleNamespace(root="runs"))
    about = {"log": "pendulum-mixed", "method": "bc", "seed": 0, "planner": "mppi"}
    assert script.measure(cell, None, (), workspace, 1) == {**about, "refused": "did not settle"}
