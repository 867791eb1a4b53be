"""The tutorials of the whole road run as they stand on logs of real machines, with few updates and rows."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mbrl
from mbrl.cli.app import app

pytestmark = [pytest.mark.slow, pytest.mark.data]

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SIZES = re.compile(r"FIT, UPDATES, VALUES, JUDGES = .*")
UNTRUSTED = {"mopo": {"rollout": {"respect_trusted_horizon": False, "starts": 50}}}
"""A model of 20 updates cannot be trusted for a step."""

SMALL_GUARD = 'guard={"prototypes": 200, "features": 16}'
QUICK = {
    "max_updates=FIT, ": "max_updates=FIT, members=2, elites=1, hidden=[16], ",
    "mbrl.train(log, name, ": "mbrl.train(log, name, **UNTRUSTED.get(name, {}), ",
    "updates=UPDATES, ": "updates=UPDATES, diagnostics=False, learner={'hidden': [16]}, ",
    "updates=20_000, ": "updates=10, diagnostics=False, learner={'hidden': [16]}, ",
    'export("bundle", ': f'export("bundle", {SMALL_GUARD}, ',
    'export("arm-bundle", ': f'export("arm-bundle", {SMALL_GUARD}, ',
    'export("so100-bundle", ': f'export("so100-bundle", {SMALL_GUARD}, ',
    "judges=JUDGES, ": "judges=JUDGES, horizon=20, ",
}
SHORTER = {
    "inspect": (),
    "fit": ("--set", "dynamics.max_updates=20", "--set", "dynamics.hidden=[8]", "--set", "dynamics.members=2",
            "--set", "dynamics.elites=1"),
    "train": ("--set", "algorithm.updates=10", "--set", "diagnostics=false"),
    "deploy-check": ("--rows", "400"),
}  # fmt: skip


def small(code: str) -> str:
    """The same code at a size that shows that it runs, not what it reaches."""
    code = SIZES.sub("FIT, UPDATES, VALUES, JUDGES = 20, 10, 5, 0", code)
    for old, new in QUICK.items():
        code = code.replace(old, new)
    return code


def commands(kind: str, body: str) -> list[list[str]]:
    lines = body.strip().splitlines()
    if kind == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [shlex.split(line)[1:] for line in lines]


def run_page(page: str) -> dict[str, Any]:
    """Runs every block in the working folder; returns the names that the Python code left."""
    scope: dict[str, Any] = {"__name__": "page", "UNTRUSTED": UNTRUSTED}
    for kind, body in BLOCK.findall((TUTORIALS / page).read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(small(body), page, "exec"), scope)
            continue
        for words in commands(kind, body) if kind in {"bash", "console"} else ():
            result = CliRunner().invoke(app, [*words, *SHORTER.get(words[0], ())])
            # The doctor may say that something must be settled first: that is an answer.
            assert result.exit_code == 0 or words[0] == "inspect", f"{words}\n{result.output}{result.stderr}"
    return scope


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_pendulum_becomes_a_bundle(folder: Path, shared_data: Path) -> None:
    (folder / "qube").symlink_to(shared_data / "real" / "quanser_qube" / "raw")
    scope = run_page("pendulum-to-a-robot.md")
    contract = scope["bundle"].contract
    assert contract.parity.policy <= 1e-5
    assert contract.rate == pytest.approx(50.0)
    assert contract.frame_names[0] == "theta"
    assert contract.verdict.verdict == scope["verdict"].verdict
    assert contract.action.channels[0].max_change == 0.5
    assert mbrl.load("datasets/first-run").info.obs_names == scope["log"].info.obs_names
    assert scope["explained"] > 0.65  # the gains are those of the machine


def test_the_arm_resembles_somebody(folder: Path, shared_data: Path) -> None:
    (folder / "pendubot").symlink_to(shared_data / "real" / "dfki_double_pendulum" / "pendubot")
    scope = run_page("two-link-arm.md")
    assert set(scope["likeness"]) == {(m, c) for m in ("bc", "iql", "mopo") for c in scope["controllers"]}
    before, after = mbrl.load("datasets/arm"), scope["log"]
    assert after.info.derived_from == before.content_hash
    # The schema's own reward is the same formula, over the length of both arms.
    height = before.transitions().reward - after.transitions().reward
    assert abs(height).max() < 0.6
    assert scope["bundle"].contract.log.episodes == 20
    assert scope["other"].logged_alarm_rate > 0.05


def test_the_lerobot_folder_becomes_a_bundle(folder: Path, shared_data: Path) -> None:
    (folder / "so100_pick").symlink_to(shared_data / "real" / "g1_lerobot")
    scope = run_page("lerobot.md")
    contract = scope["bundle"].contract
    assert contract.observation.history == 2
    assert len(contract.frame_names) == len(contract.action_names) == 26
    assert scope["runtime"].last.reasons in ((), ("surprise",), ("novelty",))
    assert "q[0]" in Path("so100-run.csv").read_text().partition("\n")[0]
