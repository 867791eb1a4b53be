"""What a user meets at the edge: an end from outside, names that nothing has, slips."""

import os
import signal
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mbrl.cli.app import app
from mbrl.cli.options import guarded

LONG = "n" * 5000
RUN = "runs/x"


def failure(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 1, (result.stdout, result.stderr)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "Internal error" not in result.stderr
    return " ".join(result.stderr.split())


def test_sigterm_ends_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]):
    closed: list[bool] = []

    @guarded
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            closed.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as ended:
        work()
    assert ended.value.exit_code == 143
    assert closed == [True]
    assert "Stopped. What was saved stays" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", LONG),
        ("import", LONG, "--out", "x"),
        ("import", "pendulum-mixed", "--out", LONG),
        ("collect", LONG, "--out", "x"),
        ("fit", LONG),
        ("fit", "pendulum-mixed", "--dynamics", LONG),
        ("train", LONG, "--algorithm", "bc"),
        ("train", "pendulum-mixed", "--algorithm", LONG),
        ("train", "pendulum-mixed", "--config", LONG),
        ("train", "pendulum-mixed", "--config", f"{LONG}.yaml"),
        ("train", "pendulum-mixed", "--algorithm", "bc", "--task", LONG),
        ("train", "pendulum-mixed", "--algorithm", "bc", "--runs", LONG),
        ("train", "pendulum-mixed", "--algorithm", "bc", "--set", f"{LONG}=1"),
        ("train", "--online", LONG, "--algorithm", "sac_online"),
        ("evaluate", LONG),
        ("export", LONG, "--out", "x.safetensors"),
        ("ope", LONG, "--dataset", "pendulum-mixed"),
        ("ope", RUN, "--dataset", LONG),
        ("ope-bench", LONG),
        ("plan", LONG, "--planner", "gumbel"),
        ("plan", RUN, "--planner", LONG),
        ("compare", LONG),
        ("report", LONG),
        ("status", LONG),
        ("status", "--runs", LONG),
    ],
    ids=lambda arguments: " ".join(part[:12] for part in arguments),
)
def test_names_of_5000_characters_are_refused(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert "Remedy: " in failure(*arguments) or "Legal " in failure(*arguments)


def test_folders_that_are_none(tmp_path: Path):
    (tmp_path / "file").touch()
    assert "is no folder. Remedy: " in failure("status", str(tmp_path / "nowhere"))
    assert "Remedy: " in failure("status", "--runs", str(tmp_path / "file"))
    train = ("train", "pendulum-mixed", "--algorithm", "bc", "--runs", str(tmp_path / "file"))
    assert "is a file, not the root of run folders" in failure(*train)


def test_slips_get_their_hint(tmp_path: Path):
    path = tmp_path / "own.yaml"
    path.write_text("algoritm: bc\n")
    assert "Unknown key algoritm. Did you mean 'algorithm'?" in failure(
        "train", "pendulum-mixed", "--config", str(path)
    )
    assert "--algorithm NAME" in failure("train", "pendulum-mixed", "--runs", str(tmp_path / "runs"))
    assert "Did you mean 'mopo'?" in failure("train", "pendulum-mixed", "--algorithm", "moppo")
