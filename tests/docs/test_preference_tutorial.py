"""The tutorial of answers runs as it stands, with few updates."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "rewards-from-people.md"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
QUICK = {
    "PAIRS, FIT, UPDATES = 500, 1_000, 10_000": "PAIRS, FIT, UPDATES = 40, 20, 10",
    "max_updates=FIT, ": "max_updates=FIT, hidden=[8], progress=False, ",
    "updates=UPDATES, ": "updates=UPDATES, diagnostics=False, progress=False, ",
    "episodes=10, ": "episodes=1, ",
}


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    for old, new in QUICK.items():
        assert old in code
        code = code.replace(old, new)
    scope: dict[str, Any] = {"__name__": "page"}
    exec(compile(code, str(PAGE), "exec"), scope)
    assert scope["model"].report.fitted_pairs == 32
    assert len(scope["queue"].pairs) == 20
    assert scope["best"].name == "bc_gaussian-best-of-16"
