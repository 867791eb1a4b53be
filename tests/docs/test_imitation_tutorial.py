"""The tutorial of imitation runs as it stands, at a size that shows that it runs and not what it reaches."""

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "imitating-an-expert.md"
_FIT = (
    "diagnostics=False, dynamics={'members': 2, 'elites': 2, 'hidden': [16], 'max_updates': 100, "
    "'assessment': {'horizon': 3, 'segments': 10, 'particles': 4, 'bootstrap_draws': 10, 'max_rows': 200}}"
)
_IMAGINE = "'starts': 20, 'respect_trusted_horizon': False"
QUICK = {
    "UPDATES, STEPS = 10_000, 1000": "UPDATES, STEPS = 10, 400",
    "episodes=10": "episodes=1",
    "updates=UPDATES": f"updates=UPDATES, learner={{'hidden': [16]}}, select='last', {_FIT}",
    '"airl", ': f'"airl", rollout={{{_IMAGINE}}}, ',
    '"mopo_ppo", ': f'"mopo_ppo", rollout={{{_IMAGINE}, "horizon": 4}}, ',
}


def test_the_tutorial_runs_from_two_logs_to_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"__name__": "page"}
    for found in re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        body = str(found)
        for old, new in QUICK.items():
            body = body.replace(old, new)
        exec(compile(body, PAGE.name, "exec"), scope)
    assert scope["rewarded"].info.derived_from == scope["log"].content_hash
    assert scope["again"].dataset_hash == scope["rewarded"].content_hash
    assert any("recovered reward" in line for line in scope["inverse"].messages())
    assert scope["on_policy"].summary["learner"] == "ppo"
