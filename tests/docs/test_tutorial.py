"""The tutorial is run as it stands, with small networks and few updates."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mbrl.cli.app import app

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "from-logs-to-a-policy.md"
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
    ),
}  # fmt: skip


def _blocks() -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def _run(command: str, run: str) -> dict[str, Any]:
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
    for language, text in _blocks():
        if language == "python":
            exec(compile(text, str(PAGE), "exec"), names)
        elif language == "yaml":
            file = re.search(r"^# (\S+\.yaml)$", text, re.MULTILINE)
            assert file is not None
            (tmp_path / file[1]).write_text(text)
        elif language == "console":
            for command in re.findall(r"^\$ (mbrl .*)$", text, re.MULTILINE):
                result = _run(command, run)
                results[command.split()[1]] = result
                run = result["path"] if " train " in command else run
    assert results["inspect"]["may_train"]
    assert len(results["evaluate"]["episode_returns"]) == 2
    assert names["action"].shape == (1, 1)
    assert names["action"].abs().max() <= 2
