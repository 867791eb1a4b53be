import dataclasses
import json

import numpy as np
import pytest
import torch

from mbrl.core.estimates import Flag
from mbrl.core.types import SpaceSpec
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.judgement.report.documents import OPEReport
from mbrl.off_policy.judgement.verdict import judge
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.report.deployment.sentences import verdict_lines
from mbrl.report.deployment.tables import estimate_table
from mbrl.run.judge.ope import REPORT_FILE, OPESettings, evaluate_off_policy, ope_stage
from mbrl.run.policies import load_policy, save_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task


def run(tmp_path, *, stochastic: bool):
    dataset = scalar_task().simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 6, 4, 0)
    spec = ActorSpec("tanh_gaussian", SpaceSpec(1, 1, (-8.0,), (8.0,)), hidden=(4,))
    actor = build_actor(spec, Normaliser.identity(1), torch.Generator().manual_seed(0))
    tmp_path.mkdir(exist_ok=True)
    path = save_policy(tmp_path / "p.safetensors", actor, {"algorithm": "toy"})
    settings = OPESettings(stochastic=stochastic, fqe=FQEConfig(hidden=(4,), updates=10))
    folder = ope_stage(load_policy(path), dataset, settings, Workspace(RunStore(tmp_path / "runs")))
    return folder, dataset


@pytest.mark.parametrize("stochastic", [False, True])
def test_the_report_is_strict_json_and_its_verdict_follows_from_it(tmp_path, stochastic):
    folder, dataset = run(tmp_path, stochastic=stochastic)
    json.dumps(json.loads((folder.path / REPORT_FILE).read_text()), allow_nan=False)
    report = OPEReport.load(folder.path / REPORT_FILE)
    assert report.candidate == "toy-s0"
    assert judge(report).verdict == report.verdict.verdict
    assert (report.estimand.horizon, report.estimand.discount) == (4, 1.0)  # whole episodes, as reported
    assert report.horizon_source == "truncations"
    returns = [e.rewards.sum(dtype=np.float64) for e in dataset.episodes]
    assert report.baseline.value == pytest.approx(np.mean(returns), rel=1e-12)
    points = {e.name: e.point for e in report.estimates}
    assert points["fqe"] is not None
    assert (points["pdwis"] is not None) == stochastic
    assert len(estimate_table(report).rows) == len(points) + 1
    assert len(verdict_lines(report)) == 2 + len(report.verdict.reasons)
    assert "1 % quantile" in report.why_not["diagnostics.support_share"]  # 24 steps are too few
    if stochastic:
        paired = report.baseline.difference("pdwis")
        assert paired.difference == pytest.approx(points["pdwis"] - np.mean(returns), rel=1e-9)
    else:
        assert "deterministic" in report.why_not["diagnostics.ess_t"]


def test_what_is_done_is_not_done_again(tmp_path):
    first, _ = run(tmp_path, stochastic=True)
    before = (first.path / REPORT_FILE).stat().st_mtime_ns
    second, _ = run(tmp_path, stochastic=True)
    assert (second.path / REPORT_FILE).stat().st_mtime_ns == before


def test_a_stage_that_is_killed_in_a_value_fit_goes_on_and_tidies_up(tmp_path, monkeypatch):
    monkeypatch.setattr("mbrl.run.judge.value_fits.SECONDS_BETWEEN", -1.0)
    whole, _ = run(tmp_path / "whole", stochastic=True)
    with monkeypatch.context() as patch:
        # after the last update, before any estimate
        patch.setattr("mbrl.off_policy.value.fqe.FQEFit.result", _die)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", stochastic=True)
    assert len(list((tmp_path / "killed").rglob("step-*.pt"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr("mbrl.off_policy.value.fqe.FQEFit.update", _die)  # nothing of the fit is done again
        again, _ = run(tmp_path / "killed", stochastic=True)
    assert (again.path / REPORT_FILE).read_bytes() == (whole.path / REPORT_FILE).read_bytes()
    assert not (again.path / "checkpoints").exists()


def _die(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_ratios_of_a_wrong_density_are_left_out(factor):
    """A log that understates its densities by a factor: self-normalised estimates do not notice it."""
    behaviour = NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4)
    dataset = scalar_task().simulate(behaviour, 60, 4, 0)
    episodes = [
        dataclasses.replace(e, behaviour_log_prob=e.behaviour_log_prob - np.float32(np.log(factor)))
        for e in dataset.episodes
    ]
    dataset = dataclasses.replace(dataset, episodes=tuple(episodes))
    policy = NoisyLinearPolicy(torch.tensor([[0.42]]), 8.0, 0.39)
    settings = OPESettings(fqe=FQEConfig(hidden=(4,), updates=2, batch_size=8))
    report = evaluate_off_policy(policy, dataset, settings)
    pdwis = report.estimate("pdwis")
    assert pdwis.valid == (factor == 1.0)
    assert (Flag.BEHAVIOUR_MISCALIBRATED in pdwis.flags) == (factor != 1.0)
    assert report.backtest is None
