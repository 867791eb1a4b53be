"""Planning as a stage: what it is made of, what it finds again, what it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.api.run_page import write_run_page
from mbrl.core.errors import ConfigError
from mbrl.envs.specs import TaskSpec, load_task
from mbrl.planning.problem.calibration import PlannerCalibration
from mbrl.report.kit.table import to_text
from mbrl.report.plan.tables import audit_table, plan_table
from mbrl.run.config import resolve
from mbrl.run.files import read_json, write_json
from mbrl.run.plan.audit import AuditConfig, audit_stage, load_audit
from mbrl.run.plan.basis import PlanBasis, open_basis
from mbrl.run.plan.config import PlanConfig, parse_plan_config
from mbrl.run.plan.critics import find_critics
from mbrl.run.plan.explanation import explain_stage
from mbrl.run.plan.planning import certify_basis, make_planner, plan_stage
from mbrl.run.plan.problem import CALIBRATION_FILE, make_plan_problem
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from tests.planning.one_step import registered
from tests.run.toy import TINY_DYNAMICS

pytestmark = pytest.mark.slow

TINY = ["algorithm.updates=20", "algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16"]
FQE: dict[str, Any] = {"updates": 30, "hidden": [8], "batch_size": 32}


@pytest.fixture(autouse=True)
def _one_step() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(RunStore(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def task() -> TaskSpec:
    return load_task("pendulum").model_copy(update={"max_episode_steps": 12})


def trained(algorithm: str, workspace: Workspace, *overrides: str) -> Path:
    arguments = {"dataset": "pendulum-mixed", "algorithm": algorithm, "dynamics": TINY_DYNAMICS}
    resolved = resolve(arguments=arguments, overrides=[*TINY, "diagnostics=false", *overrides])
    return train_policy_stage(resolved, workspace).path


@pytest.fixture(scope="module")
def td3(workspace: Workspace) -> Path:
    return trained("td3_bc", workspace)


def config(**changes: Any) -> PlanConfig:
    tree = {
        "planner": {"name": "one_step", "spread": 2.0},
        "sims": 3,
        "certificate_states": 40,
        "fqe": FQE,
        "fqe_doublings": 0,
        "unsettled_critic": "use",
        "gate": {"by": "none"},
    }
    return parse_plan_config({**tree, **changes}, where="test")


def basis_of(path: Path, workspace: Workspace) -> PlanBasis:
    return open_basis(path, workspace)


def test_a_planner_is_judged_beside_its_policy_and_found_again(
    td3: Path, workspace: Workspace, task: TaskSpec
) -> None:
    folder = plan_stage(basis_of(td3, workspace), config(), workspace, task=task, episodes=3)
    summary = folder.summary()
    assert len(summary["episode_returns"]) == len(summary["policy_returns"]) == 3
    gains = np.subtract(summary["episode_returns"], summary["policy_returns"])
    assert summary["gain_interval"]["estimate"] == pytest.approx(gains.mean())
    assert summary["plans"]["plans"] == 36
    assert summary["plans"]["batch"] == 3.0
    assert summary["plans"]["deadline_misses"] is None
    assert summary["plans"]["uncertainty"] > 0.0
    assert summary["critic"] == "learner"
    assert summary["certificate"]["mean"] >= 0.0
    stamp = (folder.path / "DONE").stat().st_mtime_ns
    again = plan_stage(basis_of(td3, workspace), config(), workspace, task=task, episodes=3)
    assert again == folder
    assert (again.path / "DONE").stat().st_mtime_ns == stamp
    other = plan_stage(basis_of(td3, workspace), config(pessimism=2), workspace, task=task, episodes=3)
    assert other != folder
    assert len(list(workspace.store.root.glob("*/calibrate_planner*"))) == 1  # shared by both
    page = write_run_page(folder.path).read_text()
    assert "Gain over the policy at logged states" in page
    assert "policy alone: mean" in page
    text = to_text([plan_table(summary)])
    assert max(map(len, text.splitlines())) <= 100
    assert "gain, paired by starts" in text
    assert "no deadline" in text


def test_the_planner_of_one_candidate_is_the_policy(td3: Path, workspace: Workspace, task: TaskSpec) -> None:
    summary = plan_stage(basis_of(td3, workspace), config(sims=1), workspace, task=task, episodes=2).summary()
    assert summary["gain_interval"]["estimate"] == pytest.approx(0.0, abs=1e-4)
    assert summary["certificate"]["improved"] == 0.0


def test_milliseconds_are_spent_on_one_state_at_a_time(
    td3: Path, workspace: Workspace, task: TaskSpec
) -> None:
    plans = plan_stage(
        basis_of(td3, workspace), config(sims=None, milliseconds=1e6), workspace, task=task, episodes=1
    ).summary()["plans"]
    assert (plans["batch"], plans["calls"], plans["deadline_misses"]) == (1.0, 12, 0)
    assert plans["milliseconds"]["p50"] > 0.0


def test_leaves_are_the_critics_of_the_last_update(td3: Path, workspace: Workspace) -> None:
    basis = basis_of(td3, workspace)
    leaf = find_critics(basis, config(), workspace)
    assert leaf.source == "learner"
    obs = torch.tensor(basis.dataset.transitions().observation[:5])
    values = leaf.critics.action_values(obs, basis.stored.policy.act(obs))
    assert values.shape == (2, 5)
    again = find_critics(basis, config(), workspace).critics.action_values(obs, basis.stored.policy.act(obs))
    assert torch.equal(values, again)
    problem, _, _ = make_plan_problem(basis, config(), workspace)
    assert torch.allclose(problem.leaf.value(obs), values, atol=1e-5)


def test_critics_of_standardised_rewards_answer_in_the_units_of_the_log(
    td3: Path, workspace: Workspace
) -> None:
    basis = basis_of(td3, workspace)
    critics, unit = find_critics(basis, config(), workspace).critics, basis.run.summary()["reward_unit"]
    obs = torch.tensor(basis.dataset.transitions().observation[:5])
    action = basis.stored.policy.act(obs)
    assert unit > 1.5
    inner: Any = critics
    torch.testing.assert_close(
        critics.action_values(obs, action), unit * inner.values.action_values(obs, action)
    )


def test_critics_that_learned_rewards_in_another_unit_are_not_used(tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    path = trained("td3_bc", workspace, "algorithm.updates=10")
    facts = read_json(path / "summary.json")
    write_json(path / "summary.json", {key: value for key, value in facts.items() if key != "reward_unit"})
    assert find_critics(basis_of(path, workspace), config(), workspace).source == "fqe"


def test_a_clone_gets_critics_that_are_fitted_to_the_log(workspace: Workspace, task: TaskSpec) -> None:
    clone = trained("bc", workspace)
    basis = basis_of(clone, workspace)
    with pytest.raises(ConfigError, match="critic=fqe"):
        find_critics(basis, config(critic="learner"), workspace)
    summary = plan_stage(basis_of(clone, workspace), config(), workspace, task=task, episodes=1).summary()
    assert summary["critic"] == "fqe"
    (fitted,) = workspace.store.root.glob("*/fit_critic*/summary.json")
    assert summary["critic_converged"] is read_json(fitted)["is_converged"]
    folders = list(workspace.store.root.glob("*/fit_critic*"))
    assert len(folders) == 1
    stamp = (folders[0] / "DONE").stat().st_mtime_ns
    first, second = (find_critics(basis, config(), workspace).critics for _ in range(2))
    assert (folders[0] / "DONE").stat().st_mtime_ns == stamp
    obs = torch.tensor(basis.dataset.transitions().observation[:5])
    values = first.action_values(obs, basis.stored.policy.act(obs))
    assert values.shape == (5, 5)
    assert torch.equal(values, second.action_values(obs, basis.stored.policy.act(obs)))
    assert float(values.std(0).min()) > 0.0


def test_values_that_did_not_settle_are_no_leaves_and_a_longer_fit_continues_a_shorter_one(
    workspace: Workspace,
) -> None:
    basis = basis_of(trained("bc", workspace), workspace)
    with pytest.raises(ConfigError, match=r"did not settle in 60 updates: .* Remedy: raise fqe.updates"):
        find_critics(basis, config(fqe_doublings=1, unsettled_critic="refuse"), workspace)
    twice = config(fqe={**FQE, "updates": 60})
    obs = torch.tensor(basis.dataset.transitions().observation[:5])
    action = basis.stored.policy.act(obs)
    doubled, whole = (
        find_critics(basis, asked, workspace).critics.action_values(obs, action)
        for asked in (config(fqe_doublings=1), twice)
    )
    torch.testing.assert_close(doubled, whole)


def test_a_constraint_is_told_of_the_log_and_of_the_plans(
    td3: Path, workspace: Workspace, task: TaskSpec
) -> None:
    limited = config(constraint="abs(next_obs_2) <= 4", cost="abs(act_0)", cost_price=0.1)
    folder = plan_stage(basis_of(td3, workspace), limited, workspace, task=task, episodes=1)
    summary = folder.summary()
    assert 0.0 < summary["limits"]["steps_broken"] < summary["limits"]["episodes_broken"] <= 1.0
    assert summary["limits"]["cost_per_episode"] > summary["limits"]["cost_per_step"] > 0.0
    assert 0.0 <= summary["plans"]["broken_share"] <= 1.0
    text = to_text([plan_table(summary)])
    assert "broken in the log" in text
    assert "cost of plans, mean" in text
    with pytest.raises(ConfigError, match="unknown name 'speed'"):
        make_plan_problem(basis_of(td3, workspace), config(constraint="speed < 1"), workspace)


def test_the_calibration_is_stored_once_and_scaled(td3: Path, workspace: Workspace) -> None:
    basis = basis_of(td3, workspace)
    problem, calibration, _ = make_plan_problem(basis, config(), workspace)
    doubled, _, _ = make_plan_problem(basis, config(pessimism=2, halts=True, critic_lcb_coef=1), workspace)
    free, _, _ = make_plan_problem(basis, config(pessimism=0), workspace)
    assert problem.pessimism.penalty_coef == calibration.penalty_coef > 0.0
    assert doubled.pessimism.penalty_coef == 2 * calibration.penalty_coef
    assert doubled.pessimism.halt_threshold == calibration.halt_threshold
    assert doubled.pessimism.critic_lcb_coef == 1.0
    assert not free.pessimism.reads_uncertainty
    stored = workspace.store.root.glob(f"*/calibrate_planner*/{CALIBRATION_FILE}")
    assert calibration in [PlannerCalibration.model_validate_json(path.read_text()) for path in stored]
    assert calibration.rows <= len(basis.split.holdout.transitions())


def test_the_certificate_is_drawn_from_held_out_states(td3: Path, workspace: Workspace) -> None:
    basis = basis_of(td3, workspace)
    ready = make_planner(basis, config(), workspace)
    found = certify_basis(basis, config(), ready.planner)
    assert found is not None
    assert found.states == 40
    assert certify_basis(basis, config(certificate_states=0), ready.planner) is None


def test_a_plan_is_explained_beside_the_nearest_logged_states(td3: Path, workspace: Workspace) -> None:
    explanation = explain_stage(basis_of(td3, workspace), "11", config(sims=5), workspace)
    assert explanation["action"] == explanation["candidates"][0]["action"]
    assert len(explanation["candidates"]) == 5
    assert explanation["plan_trace"][0]["uncertainty"] == pytest.approx(explanation["uncertainty"], rel=1e-4)
    assert explanation["tree"] is None
    assert explanation["search"] is None
    searched = explain_stage(
        basis_of(td3, workspace), "11", config(planner="sampled_gumbel", sims=6), workspace
    )
    told, given = searched["search"]["candidates"], searched["candidates"]
    assert [(one["weight"], one["visits"]) for one in told] == [
        (one["weight"], one["visits"]) for one in given[: len(told)]
    ]
    # One that was never tried has no value of its own.
    tried = [one for one in told if one["visits"] > 0]
    assert tried
    assert all(one["min_q"] <= one["q"] for one in tried)
    assert [note["action"] for note in searched["search"]["plan"]] == searched["plan"]
    tree = searched["tree"]
    assert [node["node"] for node in tree] == list(range(7))
    assert tree[0]["parent"] == -1
    nearest = explanation["nearest_logged"]
    assert (nearest[0]["step"], nearest[0]["distance"]) == (11, 0.0)
    assert [row["distance"] for row in nearest] == sorted(row["distance"] for row in nearest)


def test_online_runs_are_refused(workspace: Workspace) -> None:
    resolved = resolve(
        arguments={"task": "pendulum", "algorithm": "sac_online"},
        overrides=[*TINY, "algorithm.warmup_steps=20", "algorithm.refresh_steps=20"],
    )
    run: RunFolder = train_policy_stage(resolved, workspace)
    with pytest.raises(ConfigError, match="simulator"):
        open_basis(run.path, workspace)


def test_the_same_seed_plans_the_same(
    td3: Path, workspace: Workspace, tmp_path: Path, task: TaskSpec
) -> None:
    first = plan_stage(
        basis_of(td3, workspace), config(sims=4), workspace, task=task, episodes=2, seed=3
    ).summary()
    elsewhere = Workspace(RunStore(tmp_path))
    second = plan_stage(
        basis_of(td3, workspace), config(sims=4), elsewhere, task=task, episodes=2, seed=3
    ).summary()
    assert first["episode_returns"] == second["episode_returns"]


def test_a_gate_asks_a_model_that_the_planner_never_met(workspace: Workspace, task: TaskSpec) -> None:
    path = trained("td3_bc", workspace, "judges.max_updates=40", "select=last")
    basis, gated = basis_of(path, workspace), config(gate={"by": "judge", "states": 60, "horizon": 5})
    first = plan_stage(basis, gated, workspace, task=task, episodes=2, seed=0)
    gate = first.summary()["gate"]
    assert gate["asked"] == 60
    assert gate["verdict"].startswith(("Open", "Closed"))
    # A gate that believes nothing leaves the policy's own returns, to the last bit.
    closed = make_planner(basis, gated, workspace)
    assert closed.gate is not None
    if gate["threshold"] is None:
        assert first.summary()["episode_returns"] == first.summary()["policy_returns"]
    write_run_page(first.path)
    assert "Gate" in (first.path / "report.html").read_text()
    found = plan_stage(basis, gated, workspace, task=task, episodes=2, seed=0)
    assert found.path == first.path


@pytest.mark.parametrize("logged", [False, True])
def test_gains_are_audited_in_the_simulator_or_in_the_log(
    td3: Path, workspace: Workspace, task: TaskSpec, logged: bool
):
    audit = AuditConfig(horizons=(1, 3), states=12, candidates=3, true_steps=6, episodes=2)
    asked = config(planner="rollout")
    run = audit_stage(basis_of(td3, workspace), asked, audit, workspace, task=None if logged else task)
    found = load_audit(run)
    assert found.truth == ("logged returns" if logged else "simulator")
    assert (found.states, found.candidates) == (12, 1 if logged else 3)
    assert found.spread > 0
    assert len(found.rows) == 1 + 2 * 2 * 2
    assert (found.best is None) == logged
    for row in found.rows:
        assert row.correlation is None or -1 <= row.correlation <= 1
        assert (row.realised is None) == logged
        if row.realised is not None and found.best is not None:
            assert row.realised <= found.best + 1e-9
    assert "rank correlation" in to_text([audit_table(found)])
    again = audit_stage(basis_of(td3, workspace), asked, audit, workspace, task=None if logged else task)
    assert again.path == run.path
