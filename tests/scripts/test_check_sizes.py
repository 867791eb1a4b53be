"""The check of sizes finds what is too large, and says where."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_sizes.py"
SHORT = "def f():\n    return 1\n"


def check(folder: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, "."], cwd=folder, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def function(lines: int) -> str:
    return "def long():\n" + "    x = 1\n" * (lines - 1)


def test_what_is_at_its_limit_passes(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"m{index}.py").write_text(SHORT)
    (tmp_path / "m0.py").write_text(function(60) + "\n" * 340)
    assert check(tmp_path) == (0, [])


def test_what_is_beyond_is_named(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    for index in range(21):
        (room / f"m{index}.py").write_text(SHORT)
    (room / "m0.py").write_text(SHORT + "\n" * 399)
    (room / "m1.py").write_text("class A:\n    @property\n    def long(self):\n" + "        x = 1\n" * 60)
    assert check(tmp_path) == (
        1,
        [
            "room: 21 Python files, 20 at most",
            "room/m0.py: 401 lines, 400 at most",
            "room/m1.py: long has 61 lines, 60 at most",
        ],
    )


def test_the_median_counts_every_function(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(function(11) + function(11) + SHORT)
    assert check(tmp_path) == (1, ["the median function has 11 lines, 10 at most"])
