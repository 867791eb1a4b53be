"""`mbrl plan` from a training to a table and to an explanation, and `mbrl list planners`."""

import json
from pathlib import Path

import pytest

from mbrl.report.kit.table import TERMINAL_WIDTH
from tests.cli.test_cli import call, call_json, overrides

SEARCH = (
    "--planner", "sampled_gumbel", "--sims", "2", "--set", "certificate_states=8", "--set", "gate.by=none",
    "--set", "planner.max_depth=1", "--set", "calibration.max_rows=50",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    small = ("--runs", runs, "--set", "diagnostics=false", *overrides())
    return Path(call_json("train", "pendulum-mixed", "--algorithm", "td3_bc", *small)["path"])


def test_planners_are_listed() -> None:
    listed = call_json("list", "planners")
    assert {"gumbel", "sampled_gumbel", "puct", "dpw", "mppi", "icem", "cem"} <= set(listed["names"])
    assert all(listed["entries"].values())


@pytest.mark.slow
def test_a_planner_is_evaluated_and_found_again(run: Path) -> None:
    where = ("--runs", run.parents[1], "--episodes", "1")
    found = call_json("plan", run, *SEARCH, *where)
    assert found["plans"]["plans"] == len(found["episode_returns"]) * 200
    assert found["gain_interval"]["estimate"] == pytest.approx(
        found["episode_returns"][0] - found["policy_returns"][0]
    )
    text = call("plan", run, *SEARCH, *where).stdout
    assert "gain, paired by starts" in text
    assert max(map(len, text.splitlines()[:-1])) <= TERMINAL_WIDTH
    assert text.splitlines()[-1] == f"Wrote {found['path']}"


@pytest.mark.slow
def test_one_plan_is_explained_in_a_figure_a_tree_and_json(run: Path) -> None:
    text = call("plan", run, *SEARCH, "--runs", run.parents[1], "--explain", "5").stdout
    assert "steps of the plan" in text
    folder = run / "explanations"
    (file,) = folder.glob("sampled_gumbel-*.json")
    written = {path.name for path in folder.iterdir()}
    assert written == {f"{file.stem}{end}" for end in (".json", ".png", "-tree.png", ".dot")}
    values = json.loads(file.read_text())
    assert values["nearest_logged"][0]["distance"] == 0.0
    assert values["tree"][0]["parent"] == -1


@pytest.mark.slow
def test_a_slip_is_told_in_one_paragraph(run: Path) -> None:
    for wrong, message in (
        (("--planner", "mpi"), "mppi"),
        (("--planner", "gumbel"), "sampled_gumbel"),
        (("--planner", "mppi", "--explain", "x"), "names no state"),
        (("--planner", "mppi", "--set", "planner.horizn=3"), "horizon"),
    ):
        result = call("plan", run, *wrong, "--runs", run.parents[1], status=1)
        assert message in result.stderr
        assert "Traceback" not in result.stderr
