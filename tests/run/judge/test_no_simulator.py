"""Nothing that selects may meet a simulator: it is made impossible, and everything works."""

import subprocess
import sys
from pathlib import Path

from tests.run.toy import write_dataset

SCRIPT = """
import importlib.abc, sys

class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {"mbrl.envs.make", "gymnasium", "mujoco"}:
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Poison())
import mbrl
from mbrl.testing.samples import TINY_DYNAMICS

small = {"learner": {"hidden": [8], "batch_size": 16}, "updates": 8, "checkpoint_interval": 4}
judges = {"max_updates": 20, "starts": 6, "horizon": 4, "draws": "mean"}
log, store = sys.argv[1], sys.argv[2]
rollout = {"rollout": {"starts": 8, "respect_trusted_horizon": False}}
first = mbrl.train(log, "mopo", dynamics=TINY_DYNAMICS, judges=judges, store=store, progress=False,
                   select={"kept": 2}, **small, **rollout)
assert first.selection["rule"] == "judge"
second = mbrl.train(log, "bc", dynamics=TINY_DYNAMICS, judges=judges, store=store, progress=False,
                    select={"rule": "judge", "kept": 2}, **small)
found = mbrl.select([first, second], progress=False)
assert found.run.path in {first.path, second.path}
assert found.to_dict()["honest"] is not None
print(found)
assert "mbrl.envs.make" not in sys.modules
try:
    import mbrl.envs.make
except AssertionError:
    print("poisoned")
"""


def test_training_selecting_and_comparing_never_import_the_simulator(tmp_path: Path):
    log = write_dataset(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(log), str(tmp_path / "runs")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("poisoned")
    assert "Taken: training" in done.stdout
