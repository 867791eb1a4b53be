import dataclasses
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from mbrl.bench.peers.d3rlpy_fqe import DrawnActions
from mbrl.cli.app import app
from mbrl.cli.compare import RUNS_FAILED
from mbrl.core.assets import configs_dir
from mbrl.core.errors import ConfigError
from mbrl.core.estimates import Estimand
from mbrl.core.progress import SilentProgress
from mbrl.core.rng import RngStreams
from mbrl.envs.collect import collect
from mbrl.envs.specs import load_task
from mbrl.off_policy.estimators.base import ESTIMATORS
from mbrl.off_policy.log.policies import DeterministicMode
from mbrl.run.collect import find_policy
from mbrl.study.folder import StudyFolder
from mbrl.study.ope_bench import peer as ope_peer
from mbrl.study.ope_bench.config import FOLDER, PeerConfig, load_ope_bench
from mbrl.study.ope_bench.peer import PeerError, PeerRequest, ask_peer
from mbrl.study.ope_bench.plan import plan_ope_bench
from mbrl.study.ope_bench.tasks import PeerTask, TruthTask
from mbrl.study.tasks import Site
from tests.off_policy.lqg import LinearPolicy, scalar_task
from tests.study.toy_study import InlineEngine

SHIPPED = sorted(path.stem for path in (configs_dir() / FOLDER).glob("*.yaml"))


def plan_of(name: str, root: Path, **kwargs: Any):
    source = load_ope_bench(name, **kwargs)
    site = Site(StudyFolder(root / FOLDER / source.name), root)
    return plan_ope_bench(source, site, peer_python=None), site


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_benchmarks_can_be_planned(name: str, tmp_path: Path):
    plan, _ = plan_of(name, tmp_path)
    ids = [task.id for task in plan.tasks]
    assert len(set(ids)) == len(ids)
    position = {name: index for index, name in enumerate(ids)}
    assert all(position[need] < position[task.id] for task in plan.tasks for need in task.needs)
    if name != "smoke":
        for task in plan.source.config.tasks:
            assert len({case.candidate.label for case in plan.cases if case.task == task}) >= 24


def test_every_policy_is_judged_from_every_log_and_draws_only_where_asked(tmp_path: Path):
    plan, _ = plan_of("smoke", tmp_path, overrides=["tasks.pendulum.backtest=true"])
    judged = {case.candidate.label: case.candidate.is_stochastic for case in plan.cases}
    assert judged == {
        "random": True, "expert": False, "expert+noise": True,
        "bc-10-mixed-s0": False, "bc-50-mixed-s0": False,
        "bc_gaussian-10-mixed-s0": True, "bc_gaussian-50-mixed-s0": True,
    }  # fmt: skip
    case = next(case for case in plan.cases if case.candidate.label == "bc-10-mixed-s0")
    assert plan.chain(case) == (
        "collect.pendulum.mixed",
        "train.pendulum.mixed.bc-10.s0",
        "fit.pendulum.mixed",
        "backtest.pendulum.mixed",
        "truth.pendulum.bc-10-mixed-s0",
        "estimate.pendulum.mixed.bc-10-mixed-s0",
    )


def test_only_what_a_change_concerns_is_done_again(tmp_path: Path):
    before, _ = plan_of("smoke", tmp_path, overrides=["tasks.pendulum.backtest=true"])
    old = {task.id: task.fingerprint for task in before.tasks}

    def changed(*overrides: str) -> set[str]:
        after, _ = plan_of("smoke", tmp_path, overrides=["tasks.pendulum.backtest=true", *overrides])
        return {task.kind for task in after.tasks if task.fingerprint != old[task.id]}

    assert changed() == set()
    assert changed("tasks.pendulum.fqe.updates=61") == {"backtest", "estimate"}
    assert changed("tasks.pendulum.discount=0.8") == {"backtest", "simulate", "estimate"}
    assert changed("truth.episodes=6") == {"simulate"}
    assert changed("tasks.pendulum.dynamics.max_updates=51") >= {"fit", "backtest", "estimate"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.pendulum.stochastic=[mopo]", "which algorithms does not have"),
        ("tasks.pendulum.algorithms.bc={file: nothing}", "Unknown name 'nothing'"),
        ("tasks.pendulum.shipped=[expert, expert]", "twice"),
        ("tasks.pendulum.hrizon=3", "hrizon"),
    ],
)
def test_slips_are_told_before_anything_runs(override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_ope_bench("smoke", overrides=[override])


def test_the_true_value_is_the_mean_of_the_estimand(tmp_path: Path):
    plan, site = plan_of("smoke", tmp_path)
    task = next(task for task in plan.tasks if task.id == "truth.pendulum.expert")
    assert isinstance(task, TruthTask)
    site.folder.path.mkdir(parents=True)
    found = json.loads(task.perform(site, SilentProgress()).read_text())
    spec = load_task("pendulum")
    episodes = collect(
        spec, find_policy("expert", spec), rng=RngStreams(1), episodes=5, is_deterministic=True
    )
    values = [float(e.rewards[:50].astype(np.float64) @ 0.9 ** np.arange(50)) for e in episodes]
    assert found["value"] == pytest.approx(np.mean(values), rel=1e-5)
    assert found["se"] == pytest.approx(np.std(values, ddof=1) / math.sqrt(5), rel=1e-4)


def test_a_horizon_beyond_the_time_limit_is_refused(tmp_path: Path):
    plan, site = plan_of("smoke", tmp_path, overrides=["tasks.pendulum.horizon=201"])
    task = next(task for task in plan.tasks if task.kind == "simulate")
    with pytest.raises(ConfigError, match="beyond the time limit 200"):
        task.perform(site, SilentProgress())


PROGRAM = """
import json, pathlib, sys, numpy
folder = pathlib.Path(sys.argv[1])
options, log = json.loads((folder / "options.json").read_text()), numpy.load(folder / "log.npz")
ends = 100 * log["timeouts"].sum() + log["terminals"].sum()
for file, name in options["policies"].items():
    policy = numpy.load(folder / file)
    if name == "bad":
        raise SystemExit("no such policy")
    gain = (policy["first_draws"][0] / log["first_observations"]).mean()
    value = options["discount"] + options["updates"] + float(ends) + round(float(gain), 3)
    answer = {"value": value, "seconds": 1.0, "version": str(len(policy["draws"]))}
    (pathlib.Path(options["answers"]) / f"{name}.json").write_text(json.dumps(answer))
"""


def test_the_peer_is_asked_for_the_same_policies_on_the_same_log_once(tmp_path: Path, monkeypatch):
    program = tmp_path / "peer.py"
    program.write_text(PROGRAM)
    monkeypatch.setattr(ope_peer, "PROGRAM", program)
    good = LinearPolicy(torch.tensor([[0.4]]), 8.0)
    other = LinearPolicy(torch.tensor([[0.2]]), 8.0)
    log = scalar_task().simulate(good, 3, 6, 0)
    policies = {"good": DeterministicMode(good), "bad": DeterministicMode(other)}
    request = PeerRequest(
        sys.executable, Estimand(0.5, horizon=6), PeerConfig(updates=7), 0, tmp_path / "answers"
    )
    with pytest.raises(PeerError, match="no such policy"):
        ask_peer(policies, log, request, SilentProgress())
    program.write_text(PROGRAM.replace('"bad"', '"good"'))  # what is answered is not asked again
    answers = ask_peer(policies, log, request, SilentProgress())
    values = {name: answer.value for name, answer in answers.items()}
    assert values == pytest.approx({"good": 0.5 + 7 + 300 - 0.4, "bad": 0.5 + 7 + 300 - 0.2})
    assert answers["good"].version == "1"  # a deterministic policy needs one draw
    absent = dataclasses.replace(request, python=str(tmp_path / "nothing"), folder=tmp_path / "other")
    with pytest.raises(PeerError, match="cannot be started"):
        ask_peer(policies, log, absent, SilentProgress())


def test_a_peer_judges_all_policies_of_a_log_in_one_task(tmp_path: Path):
    source = load_ope_bench("smoke")
    site = Site(StudyFolder(tmp_path), tmp_path)
    plan = plan_ope_bench(source, site, peer_python="python")
    (peer,) = (task for task in plan.tasks if task.kind == "peer")
    assert isinstance(peer, PeerTask)
    assert [candidate.label for candidate in peer.candidates] == [case.candidate.label for case in plan.cases]
    assert {case.peer for case in plan.cases} == {peer.id}
    assert {need for need in peer.needs if need.startswith("train")} == {
        task.id for task in plan.tasks if task.kind == "train"
    }


def test_the_peers_policy_answers_with_draws_of_the_very_row():
    obs = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    draws = np.stack([obs.sum(1, keepdims=True) + k for k in range(3)])
    policy = SimpleNamespace(impl=DrawnActions(obs, draws, 0)).impl
    found = policy.predict_best_action(torch.from_numpy(obs[[3, 1]])) - torch.tensor(
        obs[[3, 1]].sum(1, keepdims=True)
    )
    assert bool(torch.isin(found.round(decimals=4), torch.tensor([0.0, 1.0, 2.0])).all())


@pytest.mark.slow
def test_the_smoke_benchmark_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    engines: list[InlineEngine] = []

    def engine(site: Site, jobs: int) -> InlineEngine:
        engines.append(InlineEngine(site, killed=[] if engines else ["estimate.pendulum.mixed.expert"]))
        return engines[-1]

    monkeypatch.setattr("mbrl.study.local_engine.LocalEngine", engine)
    arguments = ["ope-bench", "smoke", "--runs", str(tmp_path), "--json", "--jobs", "1"]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == RUNS_FAILED, first.output
    assert list(json.loads(first.stdout)["failures"]) == ["estimate.pendulum.mixed.expert"]
    second = CliRunner().invoke(app, arguments)
    assert second.exit_code == 0, second.output
    assert engines[1].started == ["estimate.pendulum.mixed.expert"]
    found = json.loads(second.stdout)
    (log,) = found["logs"]
    assert len(log["policies"]) == 7
    scores = {score["estimator"]: score for score in log["scores"]}
    sequential = {name for name in ESTIMATORS.names() if not ESTIMATORS.get(name).is_one_step}
    assert set(scores) == sequential | {"blend"}
    assert (scores["fqe"]["answered"], scores["pdwis"]["answered"]) == (7, 4)  # three have no density
    folder = tmp_path / FOLDER / "smoke"
    assert json.loads((folder / "ope-bench.json").read_text())["logs"] == found["logs"]
    assert (folder / "pendulum.mixed.png").stat().st_size > 10_000
    assert "model_value" in (folder / "ope-bench.md").read_text()
    status = CliRunner().invoke(app, ["status", str(folder), "--json"])
    assert json.loads(status.stdout)["counts"]["done"] == 7
    assert yaml.safe_load((folder / "config.yaml").read_text())["tasks"]["pendulum"]["horizon"] == 50
