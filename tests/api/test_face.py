"""The face: its names, what results show of themselves, and the road from a log in memory."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import mbrl
from mbrl.cli.app import app
from mbrl.core.errors import ConfigError
from tests.run.toy import TINY_DYNAMICS, make_dataset

BC = {"updates": 20, "checkpoint_interval": 20, "progress": False}


def test_every_name_is_there_and_documented():
    for name in mbrl.__all__:
        assert getattr(mbrl, name).__doc__, name
    assert 20 <= len(mbrl.__all__) <= 30
    assert set(mbrl.__all__) <= set(dir(mbrl))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mbrl.nothing


def test_importing_the_package_loads_neither_torch_nor_a_simulator():
    code = "import sys, mbrl; sys.exit(any(m in sys.modules for m in ('torch', 'gymnasium', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(store: Path) -> mbrl.Run:
    return mbrl.train(make_dataset(), "bc", dynamics=TINY_DYNAMICS, seed=3, store=store, **BC)


def test_a_log_in_memory_is_kept_beside_its_runs(run: mbrl.Run, store: Path):
    log = make_dataset()
    source = run.config.run.dataset
    assert source is not None
    assert Path(source).parent == (store / "datasets").resolve()
    assert mbrl.load(source).content_hash == log.content_hash
    assert run.summary["updates"] == 20


def test_what_is_done_is_found(run: mbrl.Run, store: Path):
    again = mbrl.train(make_dataset(), "bc", dynamics=TINY_DYNAMICS, seed=3, store=store, **BC)
    assert again.path == run.path
    assert mbrl.Run.load(run.path).summary == run.summary


def test_a_result_shows_itself_in_every_form(run: mbrl.Run):
    assert len(repr(run)) < 300
    assert "bc" in repr(run)
    assert "behaviour" not in str(run)
    assert "updates" in str(run)
    assert "<table" in run._repr_html_()
    assert json.loads(json.dumps(run.to_dict())) == run.to_dict()
    assert set(run.metrics()) >= {"policy/loss"}


def test_to_dict_is_what_the_command_prints(run: mbrl.Run, store: Path):
    result = CliRunner().invoke(app, ["status", "--runs", str(store), "--json"])
    assert json.loads(result.stdout) == mbrl.status(store).to_dict()
    listed = CliRunner().invoke(app, ["list", "recipes", "--json"])
    assert json.loads(listed.stdout) == mbrl.catalogue("recipes").to_dict()


def test_keywords_and_overrides_reach_the_same_keys(store: Path):
    changes = {"updates": 5, "learner": {"hidden": [8]}, "checkpoint_interval": 5}
    first = mbrl.train("pendulum-mixed", "bc", store=store, progress=False, **changes)
    texts = ["algorithm.updates=5", "algorithm.learner.hidden=[8]", "checkpoint_interval=5"]
    second = mbrl.train("pendulum-mixed", "bc", store=store, progress=False, overrides=texts)
    assert first.path == second.path
    with pytest.raises(ConfigError, match="updtes"):
        mbrl.train("pendulum-mixed", "bc", store=store, progress=False, updtes=5)


def test_a_config_object_trains_as_its_yaml_does(run: mbrl.Run, store: Path):
    section = run.config.run.algorithm
    again = mbrl.train(make_dataset(), section, dynamics=TINY_DYNAMICS, seed=3, store=store, **BC)
    assert again.path == run.path


def test_a_recipe_for_logs_refuses_a_simulator_and_the_other_way_round(store: Path):
    with pytest.raises(ConfigError, match="learns from logs"):
        mbrl.train(None, "bc", online="pendulum", store=store, progress=False)
    with pytest.raises(ConfigError, match="meets a simulator"):
        mbrl.train("pendulum-mixed", "sac_online", store=store, progress=False)


def test_a_policy_of_another_size_is_refused(run: mbrl.Run):
    with pytest.raises(ConfigError, match="reads 3 numbers, what it is held against gives 11"):
        mbrl.evaluate(run, task="hopper", episodes=1, progress=False)


def test_inspection_of_an_open_log_and_of_a_path_agree(tmp_path: Path):
    log = make_dataset()
    saved = mbrl.save(log, tmp_path / "log")
    assert mbrl.inspect(log).may_train == mbrl.inspect(saved).may_train
    assert mbrl.inspect(saved).to_html(tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    with pytest.raises(ConfigError, match="this log is open"):
        mbrl.inspect(log, overlap="terminated")


def test_the_temporary_store_is_announced_once(capsys: pytest.CaptureFixture[str]):
    mbrl.train("pendulum-mixed", "bc", updates=2, learner={"hidden": [8]})
    mbrl.train("pendulum-mixed", "bc", updates=3, learner={"hidden": [8]})
    assert capsys.readouterr().err.count("removed when Python ends") <= 1


def test_torch_settings_are_the_callers_afterwards():
    import torch

    before = torch.get_num_threads()
    mbrl.evaluate(lambda obs: np.zeros((len(obs), 1)), task="pendulum", episodes=1, threads=2, progress=False)
    assert torch.get_num_threads() == before


def test_options_of_ope_are_checked_before_anything_is_fitted(run: mbrl.Run, store: Path):
    for options, message in ({"termination": "perhaps"}, "termination"), ({"horzon": 3}, "horizon"):
        with pytest.raises(ConfigError, match=message):
            mbrl.ope(run, make_dataset(), store=store, progress=False, **options)
