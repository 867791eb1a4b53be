"""The judges of a log, what decides how they are asked, and what they show of a model that is exploited."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.dynamics.fit import split_for
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.fit import dynamics_key, judge_dynamics, judge_key, judge_streams
from mbrl.run.judge.exploitation import Belief
from mbrl.run.judge.judge_backtest import choose_draws
from mbrl.run.judge.judges import choose_starts, open_judges
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from tests.run.toy import TINY_DYNAMICS, write_dataset


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def log(source: Path) -> Dataset:
    return open_dataset(str(source), LoadOptions())


def config(source: Path, *overrides: str, **arguments: Any) -> ResolvedConfig:
    values = {"dataset": str(source), "algorithm": "bc", "dynamics": TINY_DYNAMICS, **arguments}
    return resolve(arguments=values, overrides=["judges.max_updates=20", "judges.horizon=6", *overrides])


def test_a_judge_is_a_function_of_the_log_and_not_of_the_run(source: Path, log: Dataset):
    one, other = config(source, seed=0).run, config(source, seed=7).run
    assert judge_key(one, log, 0).digest == judge_key(other, log, 0).digest
    assert judge_key(one, log, 0).digest != judge_key(one, log, 1).digest
    assert judge_key(one, log, 0).digest != dynamics_key(one, log).digest
    longer = config(source, "judges.max_updates=30").run
    assert judge_key(longer, log, 0).digest != judge_key(one, log, 0).digest
    assert judge_dynamics(config(source, "judges.max_updates=null").run).max_updates is None


def test_judges_hold_other_episodes_out_than_any_training(source: Path):
    many = open_dataset("pendulum-mixed", LoadOptions())
    run = config(source, dataset="pendulum-mixed").run
    held = [split_for(judge_dynamics(run), many, judge_streams(k)).holdout.content_hash for k in (0, 1)]
    own = [split_for(run.dynamics, many, RngStreams(k)).holdout.content_hash for k in (0, 1)]
    assert len({*held, *own}) == 4


def test_starts_are_first_states_those_of_held_out_episodes_first(source: Path, log: Dataset):
    run = config(source, "judges.starts=5").run
    rows, held_out = choose_starts(run, log)
    held = set()
    for number in (0, 1):
        split = split_for(judge_dynamics(run), log, judge_streams(number))
        held |= {i for i, e in enumerate(log.episodes) if any(e is other for other in split.holdout.episodes)}
    assert len(rows) == len(set(rows)) == 5
    assert held_out == min(5, len(held))
    assert set(rows[:held_out]) <= held
    every, _ = choose_starts(config(source).run, log)
    assert sorted(every) == list(range(len(log)))


def test_the_log_decides_between_means_and_draws():
    returns = np.array([10.0, 12.0, 8.0, 10.0])  # mean 10, standard error 0.816
    assert choose_draws(returns, mean=9.0, sample=5.0).draws == "mean"
    assert choose_draws(returns, mean=5.0, sample=9.0).draws == "sample"
    assert choose_draws(returns, mean=9.0, sample=9.5).draws == "mean"  # nearer by less than the error
    assert choose_draws(returns, mean=math.nan, sample=0.0).draws == "sample"
    both = choose_draws(returns, mean=math.nan, sample=math.nan)
    assert (both.draws, both.mean) == ("mean", None)
    found = choose_draws(returns, mean=9.0, sample=5.0)
    assert found.logged_error == pytest.approx(np.std(returns, ddof=1) / 2)
    assert "4 complete logged episodes return 10" in found.words


def test_the_back_test_is_made_once_and_said(source: Path, log: Dataset, tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr("mbrl.run.judge.clone.CLONE_UPDATES", 5)
    workspace = Workspace(RunStore(tmp_path))
    judges = open_judges(config(source), log, workspace)
    assert judges.backtest is not None
    assert judges.backtest.logged is not None
    assert judges.question.samples == (judges.backtest.draws == "sample")
    (stage,) = tmp_path.glob("*/calibrate_judges-*")
    stamp = (stage / "DONE").stat().st_mtime_ns
    again = open_judges(config(source, seed=3), log, workspace)
    assert again.backtest == judges.backtest
    assert (stage / "DONE").stat().st_mtime_ns == stamp
    facts = again.facts()
    assert facts["backtest"]["words"] == judges.backtest.words
    assert (facts["termination"], facts["horizon"]) == ("learned", 6)
    assert torch.equal(judges.starts, again.starts)


def test_a_rule_that_nobody_declares_and_no_judges_are_refused_before_any_fit(
    source: Path, log: Dataset, tmp_path: Path
):
    workspace = Workspace(RunStore(tmp_path))
    with pytest.raises(ConfigError, match="known rule"):
        open_judges(config(source, "judges.termination=task"), log, workspace)
    with pytest.raises(ConfigError, match=r"judges\.count"):
        open_judges(config(source, "judges.count=0"), log, workspace)
    assert not list(tmp_path.glob("*/fit_dynamics-*"))


def test_an_exploited_model_and_an_exploited_head_are_warned_of_with_a_remedy():
    sound = Belief("last", own=100.0, own_error=5.0, judges=98.0, judges_error=5.0)
    assert sound.warnings() == []
    noisy = Belief("last", own=160.0, own_error=40.0, judges=100.0, judges_error=30.0)
    assert noisy.warnings() == []  # 60 is little beside 2 x 50
    small = Belief("last", own=1005.0, own_error=1.0, judges=1000.0, judges_error=1.0)
    assert small.warnings() == []  # a difference, but half a percent
    exploited = Belief("last", own=2086.0, own_error=60.0, judges=722.0, judges_error=80.0)
    (text,) = exploited.warnings()
    assert "2,086" in text
    assert "722" in text
    assert "Remedy: raise penalty.coef" in text
    head = Belief("selected", 727.0, 20.0, 700.0, 20.0, by_rule=(727.0, 700.0), by_head=(2017.0, 1400.0))
    (text,) = head.warnings()
    assert "termination=task" in text
