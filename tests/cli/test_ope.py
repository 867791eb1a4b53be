"""`mbrl ope` through the real command, on the bundled log, with fits that are far too short to count."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import ROOT, call, call_json

BEHAVIOUR = ROOT / "mbrl" / "assets" / "behaviour" / "pendulum"
COMMON = ("--dataset", "pendulum-mixed", "--updates", "2", "--judges", "0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def found(runs: Path) -> dict[str, Any]:
    """Two candidates as they are deployed, against a third."""
    candidates = (BEHAVIOUR / "medium.safetensors", BEHAVIOUR / "expert.safetensors")
    other = BEHAVIOUR / "replay-1.safetensors"
    options = ("--baseline", other, "--risk", "termination:0.05", "--runs", runs)
    return call_json("ope", *candidates, *COMMON, *options, status=30)  # it cannot tell


@pytest.mark.slow
def test_the_command_judges_candidates_against_another_policy(found: dict[str, Any]) -> None:
    assert len(found["reports"]) == 2
    assert found["question"].startswith("Asked: mean return of an episode of at most 200 steps")
    assert found["proposed"] in found["candidates"]
    assert found["ranking"]["estimator"] == "fqe"
    assert not found["ranking"]["counts_for_all"]
    for report in found["reports"]:
        assert report["verdict"]["corrected"]["verdict"] == "cannot_tell"
        assert 0 <= report["diagnostics"]["support_share"] < 1
        assert report["diagnostics"]["support_by_place"]["count"]
        assert "deterministic" in report["why_not"]["diagnostics.ess_t"]
        assert report["risk"]["limit"] == 0.05
        assert report["risk"]["behaviour"]["p_violation"] == 0.0
    page = Path(found["path"]) / "index.html"
    assert "CANNOT TELL" in page.read_text(encoding="utf-8")
    assert json.loads((Path(found["path"]) / "deployment.json").read_text())["reports"] == found["reports"]


@pytest.mark.slow
def test_the_terminal_shows_tables_of_at_most_100_columns(found: dict[str, Any], runs: Path) -> None:
    del found  # the evaluation is there already
    options = ("--risk", "termination:0.05", "--runs", runs)
    text = call("ope", BEHAVIOUR / "medium.safetensors", *COMMON, *options, status=30).stdout
    lines = text.splitlines()
    assert max(len(line) for line in lines[:-1]) <= 100
    assert lines[0].startswith("Asked: mean return of an episode of at most 200 steps (the time limit that")
    assert lines[-1].endswith("index.html")
    assert "CANNOT TELL" in text
    assert "less behaviour" in text


def test_a_risk_that_means_nothing_ends_with_status_1() -> None:
    result = call("ope", BEHAVIOUR / "medium.safetensors", *COMMON, "--risk", "falling:0.1", status=1)
    assert "no risk. Legal forms" in result.stderr


def test_help_says_whose_exit_status_it_is() -> None:
    text = " ".join(call("ope", "--help").stdout.replace("│", " ").split())
    assert "cannot tell, 1 error: of the proposed candidate" in text


def test_returns_that_fit_no_candidate_are_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    path, runs = tmp_path / "tested.csv", tmp_path / "runs"
    path.write_text("candidate,return\nbc-s0,1\n")
    two = (BEHAVIOUR / "medium.safetensors", BEHAVIOUR / "expert.safetensors")
    result = call("ope", *two, *COMMON, "--tested", path, "--runs", runs, status=1)
    assert "no candidate 'bc-s0'" in result.stderr
    assert "sac_online-s0, sac_online-s0 #2" in result.stderr
    alone = call("ope", two[0], *COMMON, "--tested", path, "--runs", runs, status=1)
    assert "several candidates" in alone.stderr
    assert not runs.exists()
