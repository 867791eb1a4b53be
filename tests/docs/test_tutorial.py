"""The tutorial is run as it stands, with small networks and few updates."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mbrl.cli.app import app

pytestmark = pytest.mark.slow

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
PAGE = TUTORIALS / "from-logs-to-a-policy.md"
COMPARISON_PAGE = TUTORIALS / "comparing-algorithms.md"
_FIT = (
    "dynamics.members=2", "dynamics.elites=2", "dynamics.hidden=[32]", "dynamics.max_updates=300",
    "dynamics.assessment.horizon=3", "dynamics.assessment.segments=20", "dynamics.assessment.particles=4",
    "dynamics.assessment.bootstrap_draws=10",
)  # fmt: skip
_SMALL = {
    "fit": _FIT,
    "bc": (*_FIT, "algorithm.updates=20"),
    "mopo": (
        *_FIT, "algorithm.updates=20", "algorithm.rollout.starts=50",
        "algorithm.rollout.respect_trusted_horizon=false",
        "judges.max_updates=40", "judges.draws=mean", "judges.horizon=10", "judges.starts=6",
    ),
}  # fmt: skip


def blocks(page: Path = PAGE) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def run_command(command: str, run: str) -> dict[str, Any]:
    words = [run if word == "RUN" else word for word in command.split()[1:]]
    kind = words[words.index("--algorithm") + 1] if "--algorithm" in words else words[0]
    small = [part for value in _SMALL.get(kind, ()) for part in ("--set", value)]
    if "--episodes" in words:
        words[words.index("--episodes") + 1] = "2"
    result = CliRunner().invoke(app, [*words, *small, "--json"])
    assert result.exit_code == 0, f"{command}: {result.stderr}"
    return json.loads(result.stdout)


def test_the_tutorial_runs_from_the_log_to_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    results: dict[str, dict[str, Any]] = {}
    run = ""
    for language, text in blocks():
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif language == "yaml":
            file = re.search(r"^# (\S+\.yaml)$", text, re.MULTILINE)
            assert file is not None
            (tmp_path / file[1]).write_text(text)
        elif language == "console":
            for command in re.findall(r"^\$ (mbrl .*)$", text, re.MULTILINE):
                result = run_command(command, run)
                results[command.split()[1]] = result
                run = result["path"] if " train " in command else run
    assert results["inspect"]["may_train"]
    assert len(results["evaluate"]["episode_returns"]) == 2
    assert names["action"].shape == (1, 1)
    assert names["action"].abs().max() <= 2


def test_the_comparison_runs_from_its_yaml_to_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found_blocks = blocks(COMPARISON_PAGE)
    (tmp_path / "mine.yaml").write_text(next(text for language, text in found_blocks if language == "yaml"))
    compare, status = [
        command.split()[1:]
        for language, text in found_blocks
        if language == "console"
        for command in re.findall(r"^\$ (mbrl .*)$", text, re.MULTILINE)
    ]
    values = [*_FIT, *(f"algorithms.{name}.updates=20" for name in ("bc", "mopo")), "seeds=[0]",
              "algorithms.mopo.rollout={starts: 50, respect_trusted_horizon: false}",
              "judges={max_updates: 40, draws: mean, horizon: 10, starts: 6}",
              "datasets.random.steps=2000", "evaluation.episodes=2"]  # fmt: skip
    small = [part for value in values for part in ("--set", value)]
    result = CliRunner().invoke(app, [*compare, *small, "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [run["status"] for run in found["runs"]] == ["done"] * 4
    assert Path(found["path"]) == tmp_path / "runs" / "studies" / "mine" / "index.html"
    assert Path(found["path"]).is_file()
    result = CliRunner().invoke(app, [*status, "--json"])
    assert json.loads(result.stdout)["counts"] == {"done": 4, "running": 0, "failed": 0, "missing": 0}
