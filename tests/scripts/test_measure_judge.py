import json
from pathlib import Path

import pytest

from tests.scripts.loading import load_script


@pytest.fixture
def script():
    return load_script("measure/judge")


def test_a_column_is_scored_by_its_ranks_and_its_pick(script):
    found = script.score([3.0, None, 1.0, 2.0], [30.0, 99.0, 25.0, 20.0])
    # Of the known ones the ranks are 3, 1, 2 against 3, 2, 1: 1 - 6 * 2 / (3 * 8).
    assert found == {
        "spearman": pytest.approx(0.5), "pick": 30.0, "regret": 69.0, "judged_over_true": pytest.approx(0.1),
    }  # fmt: skip
    assert set(script.score([None, None], [1.0, 2.0]).values()) == {None}


def test_critics_are_heard_as_they_are_when_a_policy_is_kept(script):
    rows = [
        {"step": 100, "critic/value": 1.0}, {"step": 150, "critic/value": None}, {"step": 200},
        {"step": 300, "critic/value": 3.0},
    ]  # fmt: skip
    assert script.critic_values(rows, [100, 250, 300]) == [1.0, 1.0, 3.0]
    assert script.critic_values(rows, [50, 300]) is None
    assert script.critic_values([{"step": 1}], [1]) is None


def test_a_piece_is_measured_at_small_size_and_stands_in_the_table(script, tmp_path: Path, monkeypatch):
    small = (
        "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[8]", "dynamics.max_updates=20",
        "judges.count=1", "judges.starts=4", "judges.horizon=20", "judges.max_updates=20", "select.kept=2",
        "algorithm.updates=40", "algorithm.learner.hidden=[8]",
    )  # fmt: skip
    asked = ["judge.py", "--logs", "pendulum-mixed", "--methods", "td3_bc", "--seeds", "0", "--episodes", "1"]
    asked += [word for change in small for word in ("--set", change)]
    monkeypatch.setattr("sys.argv", [*asked, "--out", str(tmp_path), "--runs", str(tmp_path / "runs")])
    script.main()
    piece = json.loads((tmp_path / "pendulum-mixed.td3_bc.s0.json").read_text())
    assert piece["updates"] == [20, 40]
    assert piece["selected"] == piece["true"][piece["chosen"]]
    assert (piece["best"], piece["last"]) == (max(piece["true"]), piece["true"][-1])
    returns = " | ".join(f"{piece[name]:.0f}" for name in ("last", "selected", "best"))
    assert f"| pendulum-mixed | td3_bc | 0 | {returns} |" in (tmp_path / "README.md").read_text()
    (axes,) = (axes for axes in script.draw([piece]).axes if axes.axison)
    lines = [line.get_xydata().tolist() for line in axes.get_lines()]
    points = [list(point) for point in zip(piece["true"], piece["judged"]["mean"], strict=True)]
    assert lines[1:] == [points, points[-1:], [points[piece["chosen"]]]]
    assert (tmp_path / "pendulum-mixed.png").stat().st_size > 1000


def test_all_policies_of_a_log_are_one_portfolio(script):
    pieces = []
    for seed, true in enumerate(([1.0, 4.0], [2.0, 3.0])):
        judged = {name: [10.0 * value for value in true] for name in ("lower_bound", "mean", "least_member")}
        judged["least_member"] = [-value for value in judged["mean"]]
        piece = {
            "log": "hopper/medium", "method": "bc", "seed": seed, "last": true[-1], "selected": max(true),
            "best": max(true), "by": {}, "honest": None, "true": true, "judged": judged,
        }  # fmt: skip
        pieces.append(piece)
    assert "| hopper/medium | 2 | 4 | 4 | 4 | 4 | 4 | 1.00, 1.00, -1.00 |" in script.table(pieces)
