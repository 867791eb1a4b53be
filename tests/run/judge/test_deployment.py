"""Candidates on a toy log: what is compared with what, and what is written."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError, DataError
from mbrl.core.estimates import Estimand
from mbrl.core.types import SpaceSpec
from mbrl.data.splits import cut
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.judgement.paired import Evidence
from mbrl.off_policy.judgement.report.documents import DeploymentReport, OPEReport
from mbrl.off_policy.judgement.risk import RiskQuestion, rollout_risk
from mbrl.off_policy.judgement.verdict import judge
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.run.judge.deployment import (
    DEPLOYMENT_FILE,
    PAGE,
    EvaluatedPolicy,
    Trials,
    compare_candidates,
    deployment_stage,
    unique_names,
)
from mbrl.run.judge.evidence import EVIDENCE_FILE, StoredEvidence
from mbrl.run.judge.ope import REPORT_FILE, OPESettings, ope_stage
from mbrl.run.judge.tested import read_tested
from mbrl.run.policies import load_policy, save_policy
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from tests.off_policy.lqg import NoisyLinearPolicy, scalar_task

SETTINGS = OPESettings(
    stochastic=True, fqe=FQEConfig(hidden=(4,), updates=10), risk=RiskQuestion("below", -3.0, 0.5)
)


@pytest.fixture(scope="module")
def dataset():
    return scalar_task().simulate(NoisyLinearPolicy(torch.tensor([[0.4]]), 8.0, 0.4), 60, 8, 0)


@pytest.fixture(scope="module")
def folders(dataset, tmp_path_factory):
    """Evaluations of two policies, and the workspace."""
    root = tmp_path_factory.mktemp("ope")
    workspace = Workspace(RunStore(root / "runs"))
    found = []
    for seed in range(2):
        spec = ActorSpec("tanh_gaussian", SpaceSpec(1, 1, (-8.0,), (8.0,)), hidden=(4,))
        actor = build_actor(spec, Normaliser.identity(1), torch.Generator().manual_seed(seed))
        path = save_policy(root / f"{seed}.safetensors", actor, {"algorithm": "toy"})
        found.append(ope_stage(load_policy(path), dataset, SETTINGS, workspace))
    return found, workspace


def read(folder) -> DeploymentReport:
    json.dumps(json.loads((folder.path / DEPLOYMENT_FILE).read_text()), allow_nan=False)
    return DeploymentReport.load(folder.path / DEPLOYMENT_FILE)


def report_of(run) -> OPEReport:
    return OPEReport.load(run.path / REPORT_FILE)


def test_one_candidate_is_judged_against_the_behaviour(folders, dataset):
    (first, _), workspace = folders
    folder = deployment_stage([first], None, dataset, workspace)
    whole = read(folder)
    assert whole.ranking is None
    assert whole.proposed == "toy-s0"
    (report,) = whole.reports
    assert report.verdict.corrected is None
    assert report.baseline.policy == "behaviour"
    assert judge(report).verdict == report.verdict.verdict
    assert {s.source for s in report.risk.sources} == {"ratio"}
    assert report.risk.limit == 0.5
    assert report.diagnostics.segments
    assert report == report_of(first)  # nothing changes by comparing one with the policy that acted
    assert "<html" in (folder.path / PAGE).read_text()
    before = (folder.path / PAGE).stat().st_mtime_ns
    again = deployment_stage([first], None, dataset, workspace)
    assert (again.path / PAGE).stat().st_mtime_ns == before


def test_several_are_ranked_by_joint_draws_and_judged_at_a_common_level(folders, dataset):
    (first, second), workspace = folders
    whole = read(deployment_stage([first, second], None, dataset, workspace))
    assert whole.candidates == ("toy-s0", "toy-s0 #2")
    assert whole.ranking.estimator == "pdwis"
    assert sum(whole.ranking.p_best) == pytest.approx(1.0)
    assert whole.ranking.regret >= 0
    for report in whole.reports:
        paired = report.baseline.difference("pdwis")
        assert paired.ci_corrected[0] <= paired.ci95[0]
        assert paired.ci_corrected[1] >= paired.ci95[1]
        source = report.risk.sources[0]
        assert source.p_violation_ci_corrected[1] >= source.p_violation_ci95[1]
        joint = judge(report, interval="ci_corrected").verdict
        assert report.verdict.final.verdict == report.verdict.corrected.verdict == joint


def test_tests_on_the_machine_inform_the_next_ones(folders, dataset):
    (first, second), workspace = folders
    before = read(deployment_stage([first, second], None, dataset, workspace)).test_plan
    assert [entry.tested for entry in before.candidates] == [0, 0]
    assert sum(entry.next for entry in before.candidates) == before.episodes == 10
    assert before.regret_then <= before.regret_now + 0.05
    evidence = [StoredEvidence.load(run.path / EVIDENCE_FILE) for run in (first, second)]
    assert [e.actions.shape for e in evidence] == [(480, 1)] * 2  # 60 episodes of 8 steps
    for entry, e in zip(before.candidates, evidence, strict=True):
        assert entry.prior == pytest.approx(e.by_estimator["pdwis"].point)
        assert entry.prior == entry.mean
    trials = Trials({"toy-s0 #2": [50.0, 52.5]}, episodes=4)
    after = read(deployment_stage([first, second], None, dataset, workspace, trials=trials)).test_plan
    assert [entry.tested for entry in after.candidates] == [0, 2]
    assert after.candidates[1].mean > before.candidates[1].mean + 1
    assert after.candidates[1].se < before.candidates[1].se
    assert after.episodes == 4


def test_a_plan_needs_to_know_how_candidates_act(folders, dataset):
    runs, _ = folders
    stored = [StoredEvidence.load(run.path / EVIDENCE_FILE) for run in runs]
    old = dataclasses.replace(stored[1], actions=None)
    candidates = [
        EvaluatedPolicy(report_of(run).named(name), evidence)
        for name, run, evidence in zip("ab", runs, (stored[0], old), strict=True)
    ]
    whole = compare_candidates(candidates, None, dataset)
    assert whole.ranking is not None
    assert whole.test_plan is None
    assert "earlier version" in whole.why_no_test_plan


@pytest.mark.parametrize(
    ("text", "field", "row", "words"),
    [
        ("policy,return\n", "candidate", None, "column is missing"),
        ("candidate,return\na,1\nc,2\n", "candidate", 1, "no candidate 'c'.*a, b"),
        ("candidate,return\na,much\n", "return", 0, "'much' is no finite number"),
        ("candidate,return\na\n", "return", 0, "no finite number"),
        ("candidate,return\na,inf\n", "return", 0, "no finite number"),
    ],
)
def test_a_bad_file_of_returns_is_refused(tmp_path, text, field, row, words):
    path = tmp_path / "tested.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_tested(path, ["a", "b"])
    assert (caught.value.field, caught.value.row, caught.value.file) == (field, row, path)
    with pytest.raises(DataError, match="cannot be read"):
        read_tested(tmp_path / "none.csv", ["a", "b"])
    with pytest.raises(ConfigError, match="several candidates"):
        read_tested(path, ["a"])
    path.write_text("candidate,return\nb, 1.5\na,2\nb,-3\n", encoding="utf-8-sig")  # as spreadsheets write it
    assert read_tested(path, ["a", "b"]) == {"b": [1.5, -3.0], "a": [2.0]}


def test_another_policy_as_baseline_is_paired_by_episode(folders, dataset):
    (first, second), workspace = folders
    whole = read(deployment_stage([first], second, dataset, workspace))
    (report,) = whole.reports
    assert whole.baseline == report.baseline.policy == "toy-s0"
    points = [report_of(run).estimate("pdwis").point for run in (first, second)]
    assert report.baseline.difference("pdwis").difference == pytest.approx(points[0] - points[1])
    itself = read(deployment_stage([first], first, dataset, workspace)).reports[0]
    for name in ("pdwis", "fqe", "dm", "is"):
        assert itself.baseline.difference(name).ci95 == pytest.approx((0.0, 0.0), abs=1e-9), name


def test_different_values_do_not_compare(folders, dataset):
    report = report_of(folders[0][0])
    other = report.model_copy(update={"estimand": Estimand(0.5, 3)})
    candidates = [
        EvaluatedPolicy(found.named(name), StoredEvidence({}))
        for name, found in (("a", report), ("b", other))
    ]
    with pytest.raises(ConfigError, match="different values"):
        compare_candidates(candidates, None, dataset)


def test_evidence_survives_its_file(folders, dataset, tmp_path):
    (first, _), _ = folders
    stored = StoredEvidence.load(first.path / EVIDENCE_FILE)
    assert stored.by_estimator["fqe"].members.size == 5
    assert stored.by_estimator["pdwis"].members is None
    report = report_of(first)
    for name, evidence in stored.by_estimator.items():
        assert evidence.point == pytest.approx(report.estimate(name).point, rel=1e-9), name
    stored.save(tmp_path / "copy.npz")
    copy = StoredEvidence.load(tmp_path / "copy.npz")
    assert (copy.log_ratio == stored.log_ratio).all()
    assert copy.rollouts is None
    assert copy.tail is None  # no episode was cut
    assert copy.by_estimator.keys() == stored.by_estimator.keys()


def test_what_stood_for_cut_episodes_and_roll_outs_of_some_starts_survive_the_file(dataset, tmp_path):
    n, found = len(dataset), dataset.episodes
    short = dataclasses.replace(cut(found[1], 0, 2), whole=None)
    log = dataclasses.replace(dataset, episodes=(found[0], short, *found[2:]))
    ends = np.where(np.arange(n) == 1, 7.0, 0.0)
    evidence = {"pdwis": Evidence(np.ones(n)), "model_value": Evidence(np.ones(n - 2))}
    steps = len(found[0])
    StoredEvidence(evidence, np.zeros((n, steps)), tail=ends).save(tmp_path / "cut.npz")
    copy = StoredEvidence.load(tmp_path / "cut.npz")
    assert copy.by_estimator["model_value"].per_episode.size == n - 2
    arrays = copy.arrays(log, Estimand(1.0, steps))
    assert arrays.tail.tolist() == ends.tolist()
    assert arrays.truncated.tolist() == (ends > 0).tolist()


def test_names_are_told_apart():
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a #2", "a #3"]


def test_roll_outs_speak_of_the_risk_at_the_common_level(folders, dataset):
    report = report_of(folders[0][0])
    model = report.estimates[0].model_copy(
        update={"name": "model_value", "family": "model", "valid": True, "why_not": None}
    )
    rng = np.random.default_rng(0)
    rollouts = np.stack([rng.normal(-3.0, 1.0, (5, 60)), np.zeros((5, 60))])
    risk = rollout_risk(rollouts[0], rollouts[1] > 0, SETTINGS.risk, why_not=None)
    others = tuple(e for e in report.estimates if e.name != "model_value")
    report = report.model_copy(
        update={
            "estimates": (*others, model),
            "risk": report.risk.model_copy(update={"sources": (risk,)}),
        }
    )
    evidence = StoredEvidence({}, None, rollouts)
    found = compare_candidates([EvaluatedPolicy(report.named(n), evidence) for n in "ab"], None, dataset)
    (source,) = found.reports[0].risk.sources
    assert source.source == "model"
    low, high = source.p_violation_ci_corrected
    assert low <= source.p_violation_ci95[0] < source.p_violation < source.p_violation_ci95[1] <= high
    assert found.ranking is None
    assert found.why_no_ranking == "no primary estimator judged all candidates"
