"""What runs, in which order, and what a failure takes with it."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from mbrl.core.errors import NonFiniteError
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from mbrl.study.folder import Outcome
from mbrl.study.layout import StudyPlan
from mbrl.study.sweep import SweepState
from mbrl.study.tasks import Site
from tests.run.toy import TINY_DYNAMICS
from tests.study.toy_study import BC, LEARNER, MOPO, sweep_inline, toy_plan


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPlan, Site, list[str]]:
    folder = tmp_path_factory.mktemp("study")
    plan, site = toy_plan(folder, folder / "runs")
    _, started = sweep_inline(plan, site)
    return plan, site, started


def test_a_fit_is_shared_by_all_who_need_it_and_comes_before_them(
    swept: tuple[StudyPlan, Site, list[str]],
) -> None:
    plan, site, started = swept
    assert started == [
        "train.toy.bc.s0", "fit.toy.s0", "train.toy.mopo.s0", "train.toy.mbpo.s0",
        "train.toy.bc.s1", "fit.toy.s1", "train.toy.mopo.s1", "train.toy.mbpo.s1",
    ]  # fmt: skip
    assert len(list(site.runs.glob("*/fit_dynamics*"))) == 2
    assert all(run.manifest()["resumes"] == 0 for run in RunStore(site.runs).runs())
    assert [task.id for task in plan.chain("toy", "mbpo", 1)] == ["fit.toy.s1", "train.toy.mbpo.s1"]
    assert [task.id for task in plan.chain("toy", "bc", 1)] == ["train.toy.bc.s1"]


def test_train_finds_a_run_that_the_comparison_made(swept: tuple[StudyPlan, Site, list[str]]) -> None:
    plan, site, _ = swept
    overrides = ["algorithm.updates=20", "algorithm.learner.hidden=[8]", "algorithm.learner.batch_size=16"]
    arguments = {"dataset": plan.sources["toy"], "algorithm": "bc", "dynamics": TINY_DYNAMICS, "seed": 1}
    found = train_policy_stage(
        resolve(arguments=arguments, overrides=overrides), Workspace(RunStore(site.runs))
    )
    outcome = site.folder.outcome("train.toy.bc.s1")
    assert outcome is not None
    assert str(found.path) == outcome.path


def test_what_is_done_is_not_started_again(swept: tuple[StudyPlan, Site, list[str]], tmp_path: Path) -> None:
    plan, site, _ = swept
    state, started = sweep_inline(plan, site)
    assert started == []
    assert state.counts() == {"done": len(plan.tasks)}
    assert state.seconds_left() == 0


def test_only_what_a_changed_config_changes_runs_again(tmp_path: Path) -> None:
    algorithms = {"bc": BC, "mopo": MOPO}
    sweep_inline(*toy_plan(tmp_path, tmp_path / "runs", seeds=[0], algorithms=algorithms))
    algorithms = {"bc": {**BC, "updates": 10}, "mopo": MOPO}
    plan, site = toy_plan(tmp_path, tmp_path / "runs", seeds=[0], algorithms=algorithms)
    _, started = sweep_inline(plan, site)
    assert started == ["train.toy.bc.s0"]
    dynamics = {**plan.source.config.dynamics, "max_updates": 30}
    changed = toy_plan(tmp_path, tmp_path / "runs", seeds=[0], algorithms=algorithms, dynamics=dynamics)
    _, started = sweep_inline(*changed)
    assert {"fit.toy.s0", "train.toy.mopo.s0"} <= set(started)
    assert len(list(site.runs.glob("toy/train_policy-bc-*"))) == 2  # the ensemble is no part of a clone


def test_a_failed_run_tells_why_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_for_seed_0(resolved: ResolvedConfig, workspace: Workspace) -> RunFolder:
        if resolved.run.seed == 0:
            raise NonFiniteError("The loss is not finite. Remedy: none.")
        return train_policy_stage(resolved, workspace)

    plan, site = toy_plan(tmp_path, tmp_path / "runs", seeds=[0, 1], algorithms={"bc": BC})
    monkeypatch.setattr("mbrl.study.layout.train_policy_stage", fail_for_seed_0)
    state, _ = sweep_inline(plan, site)
    assert state.counts() == {"done": 1, "failed": 1}
    failed = state.outcomes["train.toy.bc.s0"]
    assert failed.cause == "The loss is not finite. Remedy: none."
    assert "fail_for_seed_0" in Path(failed.trace or "").read_text()
    monkeypatch.undo()
    state, started = sweep_inline(plan, site)
    assert started == ["train.toy.bc.s0"]
    assert state.counts() == {"done": 2}
    assert not list(site.folder.path.glob("failures/*"))


def test_a_fault_of_the_program_is_named_by_its_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> RunFolder:
        raise KeyError("x")

    plan, site = toy_plan(tmp_path, tmp_path / "runs", seeds=[0], algorithms={"bc": BC})
    monkeypatch.setattr("mbrl.study.layout.train_policy_stage", fail)
    assert sweep_inline(plan, site)[0].outcomes["train.toy.bc.s0"].cause == "KeyError: 'x'"


def test_a_dead_worker_fails_what_needs_its_task_and_a_second_sweep_tries_again(tmp_path: Path) -> None:
    algorithms = {"bc": BC, "mopo": MOPO}
    plan, site = toy_plan(tmp_path, tmp_path / "runs", seeds=[0], algorithms=algorithms)
    state, started = sweep_inline(plan, site, killed=["fit.toy.s0"])
    assert "train.toy.mopo.s0" not in started
    assert state.outcomes["fit.toy.s0"].cause == "Its worker was killed."
    cause = state.outcomes["train.toy.mopo.s0"].cause
    assert cause == "It needs fit.toy.s0, which failed: Its worker was killed."
    assert state.counts() == {"done": 1, "failed": 2}
    state, started = sweep_inline(plan, site)
    assert started == ["fit.toy.s0", "train.toy.mopo.s0"]
    assert state.counts() == {"done": 3}


def test_a_result_that_was_removed_is_made_again(tmp_path: Path) -> None:
    plan, site = toy_plan(tmp_path, tmp_path / "runs", seeds=[0], algorithms={"bc": BC})
    state, _ = sweep_inline(plan, site)
    (Path(state.outcomes["train.toy.bc.s0"].path or "") / "DONE").unlink()
    assert sweep_inline(plan, site)[1] == ["train.toy.bc.s0"]


def test_the_time_left_is_that_of_like_tasks_over_the_slots(tmp_path: Path) -> None:
    algorithms = {"bc": BC, "other": {"file": "bc", "learner": LEARNER}}
    plan, site = toy_plan(tmp_path, tmp_path / "runs", seeds=[0, 1], algorithms=algorithms)
    state = SweepState(site.folder, plan.tasks, slots=2)
    assert state.seconds_left() is None
    state.outcomes["train.toy.bc.s0"] = Outcome("train.toy.bc.s0", "done", "", seconds=10.0)
    assert state.seconds_left() == 15  # three tasks of 10 s on two slots
    state.outcomes["train.toy.other.s0"] = Outcome("train.toy.other.s0", "done", "", seconds=30.0)
    assert state.seconds_left() == 20  # one of 10 s, one of 30 s
    state.running["train.toy.other.s1"] = time.monotonic() - 1000
    assert state.seconds_left() == 5  # overdue: nothing is left of it
    assert dataclasses.replace(state, found=frozenset(state.outcomes)).seconds_left() is None
