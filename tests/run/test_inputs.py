import dataclasses
import sys
from pathlib import Path

import pytest
import yaml

from mbrl.core.errors import ConfigError
from mbrl.data.dataset import Dataset
from mbrl.envs.specs import load_task
from mbrl.run.config import RunConfig, resolve
from mbrl.run.inputs import find_run_task
from tests.run.toy import make_dataset


def config(**values: object) -> RunConfig:
    return resolve(None, arguments={"algorithm": "bc", **values}).run


def naming(**values: object) -> Dataset:
    data = make_dataset()
    return dataclasses.replace(data, info=dataclasses.replace(data.info, **values))


def test_a_dataset_names_a_shipped_task_or_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A log that names a file or a module would run code of its author on evaluation."""
    (tmp_path / "planted.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    spec = make_dataset().spec
    own = {
        "name": "own",
        "env_id": "planted:Own-v0",
        "obs_dim": spec.obs_dim,
        "act_dim": spec.act_dim,
        "act_low": list(spec.act_low),
        "act_high": list(spec.act_high),
    }
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(own))
    for name in (str(path), "planted:Own-v0"):
        with pytest.raises(ConfigError, match="not taken from data"):
            find_run_task(config(), naming(task=name))
    assert find_run_task(config(), naming(task=None, env_id="planted:Own-v0")) is None
    user = find_run_task(config(task=str(path)), naming(task=None))  # the user's own word counts
    assert user == load_task(path)
    assert "planted" not in sys.modules


def test_a_log_of_another_task_of_a_shipped_name_is_not_evaluated_in_the_shipped_one():
    with pytest.raises(ConfigError, match="another one than the shipped"):
        find_run_task(config(), naming(task="pendulum", env_id="Other-v0"))
    noted = naming(task="pendulum", env_id="Pendulum-v1", provenance={"task_hash": "0" * 32})
    with pytest.raises(ConfigError, match="another one than the shipped"):
        find_run_task(config(), noted)
