import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import mbrl
from mbrl.envs.specs import load_task
from tests.run.toy import TINY_DYNAMICS
from tests.scripts.loading import load_script
from tests.study.toy_study import BC


@pytest.fixture
def script():
    return load_script("measure/auto")


def piece(taken: str | None, **true: tuple[float, float]) -> dict[str, Any]:
    """True returns of the chosen and of the last policy by label; the behaviour is worth 10."""
    return {
        "log": "task/log", "seed": 0, "rows": 1000, "minutes": 5.0, "jobs": 1, "taken": taken, "scale": 50.0,
        "behaviour": {"mean": 10.0, "error": 3.0},
        "candidates": [
            {"label": label, "selected": chosen, "last": last, "error": 4.0}
            for label, (chosen, last) in true.items()
        ],
    }  # fmt: skip


def test_a_pick_is_held_against_the_best_candidate_and_the_behaviour(script):
    found = script.row(piece("iql", bc=(12.0, 5.0), iql=(20.0, 15.0), mopo_careful=(30.0, -40.0)))
    assert found == {
        "pick": 20.0, "best": 40.0, "regret": 20.0, "is_worse": False,
        "BC": -10.0, "IQL": 10.0, "MOPO": -100.0,
    }  # fmt: skip


def test_two_standard_errors_below_the_behaviour_are_worse(script):
    assert not script.row(piece("bc", bc=(0.5, 0.0)))["is_worse"]
    assert script.row(piece("bc", bc=(-0.5, 0.0)))["is_worse"]


def test_who_is_told_to_take_none_keeps_the_behaviour(script):
    found = script.row(piece(None, bc=(5.0, 5.0), iql=(8.0, 8.0)))
    assert (found["pick"], found["best"], found["regret"], found["is_worse"]) == (0.0, 0.0, 0.0, False)
    page = script.table([piece(None, bc=(5.0, 5.0)), piece("bc", bc=(20.0, 5.0))])
    assert "| task/log | 0 | 1,000 | 5 x 1 | none | 0.0 | 0.0 | -10.0 | - | - |" in page
    assert "Over 2 presses: mean points pick 10.0, best 10.0, BC -10.0; regret of the pick 0.0;" in page


def test_the_button_is_pressed_at_small_size(script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mbrl.study.auto.budget.PROBE_SECONDS", 0.01)
    tree = {
        "dynamics": TINY_DYNAMICS, "algorithms": {"bc": BC}, "kept": 2, "least_updates": 5,
        "judges": {"starts": 4, "horizon": 4, "draws": "mean", "max_updates": 20},
    }  # fmt: skip
    portfolio = tmp_path / "small.yaml"
    portfolio.write_text(yaml.safe_dump(tree))
    mbrl.save(mbrl.load("pendulum-mixed").select(range(10)), tmp_path / "sim" / "pendulum" / "few-v0")
    asked = ["auto.py", "--data", str(tmp_path), "--logs", "pendulum/few", "--minutes", "1"]
    asked += ["--portfolio", str(portfolio), "--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    monkeypatch.setattr("sys.argv", [*asked, "--episodes", "2"])
    script.main()
    found = json.loads((tmp_path / "out" / "pendulum-few.s0.json").read_text())
    (candidate,) = found["candidates"]
    assert (candidate["label"], found["rows"]) == ("bc", 2000)
    assert candidate["selected"] < 0
    task = load_task("pendulum")
    assert found["scale"] == task.ref_max_score - task.ref_min_score
    assert "| pendulum/few | 0 | 2,000 |" in (tmp_path / "out" / "README.md").read_text()
