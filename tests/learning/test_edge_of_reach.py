import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.learning.edge import DISCOUNT, HIGHEST_REWARD

ROOT = Path(__file__).resolve().parents[2]


def learned_values(critics: int) -> list[float]:
    """In a process of its own: checks of shapes at run time cost several times what small networks do."""
    command = [sys.executable, "-m", "tests.learning.edge", str(critics)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_values_run_away_at_the_edge_unless_many_critics_guard_it() -> None:
    most = HIGHEST_REWARD / (1 - DISCOUNT)
    unguarded, guarded = learned_values(1), learned_values(10)
    assert sum(value > most for value in unguarded) >= 4, unguarded
    assert not any(value > most for value in guarded), guarded
