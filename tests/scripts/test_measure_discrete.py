import json
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mbrl
from mbrl.core.errors import ConfigError
from tests.scripts.loading import load_script

script = load_script("measure/discrete")

# Keeps what it was given, and answers.
_STAND_IN = """#!{python}
import json, pathlib, shutil, sys
folder = pathlib.Path(sys.argv[2])
shutil.copytree(folder, {kept!r})
answer = {{"returns": [3.0, 5.0], "seconds": 1.0, "version": "0"}}
(folder / "answer.json").write_text(json.dumps(answer))
"""


def episode(actions: list[int], **ends: bool) -> dict[str, Any]:
    observations = np.arange(len(actions) + 1, dtype=np.float32)[:, None]
    return {
        "observations": observations,
        "actions": np.array(actions),
        "rewards": np.ones(len(actions)),
        **ends,
    }


def test_another_library_is_given_ids_flags_and_the_same_settings(tmp_path: Path):
    python, kept = tmp_path / "python", tmp_path / "kept"
    python.write_text(_STAND_IN.format(python=sys.executable, kept=str(kept)))
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    data = mbrl.Dataset.from_episodes(
        [episode([1, 0, 1], terminated=True), episode([0, 1], truncated=True)], choices=2
    )
    answer = script.ask_peer(script.Piece("cartpole/random", "d3rlpy_cql", 3), data, 2, str(python))
    assert answer["returns"] == [3.0, 5.0]
    options = json.loads((kept / "options.json").read_text())
    assert (options["work"], options["env_id"], options["seed"]) == ("discrete_cql", "CartPole-v1", 3)
    with np.load(kept / "log.npz") as log:
        assert log["observations"].tolist() == [[0], [1], [2], [0], [1]]
        assert log["actions"].tolist() == [1, 0, 1, 0, 1]
        assert log["terminals"].tolist() == [0, 0, 1, 0, 0]
        assert log["timeouts"].tolist() == [0, 0, 0, 0, 1]


def test_the_table_gives_means_over_seeds_and_their_standard_error(tmp_path: Path):
    for seed, returns in enumerate(([1.0, 3.0], [4.0, 8.0])):
        piece = script.Piece("cartpole/random", "dqn", seed)
        row = {"log": piece.log, "method": piece.method, "returns": returns, "mean_return_logged": 9.0}
        piece.path(tmp_path).write_text(json.dumps(row))
    # Means 2 and 6: 4 on average, deviation sqrt(8), over sqrt(2).
    assert "| dqn | 4.0 ± 2.0 (2) |" in script.table(tmp_path)
    refused = script.Piece("cartpole/random", "dqn", 2)
    row = {"log": refused.log, "method": "dqn", "returns": [], "refused": "why", "mean_return_logged": 9.0}
    refused.path(tmp_path).write_text(json.dumps(row))
    assert "| dqn | 4.0 ± 2.0 (2, 1 refused) |" in script.table(tmp_path)


def test_a_model_that_is_trusted_for_no_step_is_a_refusal_and_no_crash(tmp_path: Path, monkeypatch):
    said = "The trusted horizon of the dynamics model is 0: on held-out episodes"

    def refuse(*given: Any, **how: Any) -> None:
        raise ConfigError(said)

    monkeypatch.setattr(script.mbrl, "train", refuse)
    data = mbrl.Dataset.from_episodes([episode([1, 0], terminated=True)], choices=2)
    found = script.train_ours(script.Piece("cartpole/random", "discrete_mopo", 0), data, tmp_path, 1)
    assert (found["returns"], found["refused"]) == ([], said)
    said = "Another mistake."
    with pytest.raises(ConfigError, match="Another"):
        script.train_ours(script.Piece("cartpole/random", "discrete_mopo", 0), data, tmp_path, 1)
