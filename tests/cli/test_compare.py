"""What `mbrl compare` prints, writes and ends with; the report itself is tested beside its code."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import mbrl
from mbrl.api import progress
from mbrl.cli.app import app
from mbrl.cli.compare import RUNS_FAILED
from mbrl.core.errors import ConfigError
from mbrl.report.kit.table import Table
from mbrl.report.study.facts import Study
from mbrl.study.folder import Outcome, StudyFolder
from mbrl.study.sweep import SweepState
from tests.study.toy_study import BC, InlineEngine, toy_plan, write_study_config

studies: list[Study] = []


@pytest.fixture(autouse=True)
def _no_processes_and_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks run in this process, and the report is one line."""

    def write_study(study: Study, out: Path) -> Path:
        out.mkdir(parents=True, exist_ok=True)
        studies.append(study)
        (out / "index.html").write_text(study.name)
        return out / "index.html"

    pages, tables = ModuleType("study_pages"), ModuleType("study_tables")
    pages.write_study = write_study  # pyright: ignore[reportAttributeAccessIssue]
    tables.study_table = lambda study: [  # pyright: ignore[reportAttributeAccessIssue]
        Table("runs", ("algorithm", "status"), [(run.algorithm, run.status) for run in study.runs])
    ]
    monkeypatch.setitem(sys.modules, "mbrl.report.study.page", pages)
    monkeypatch.setitem(sys.modules, "mbrl.report.study.tables", tables)
    monkeypatch.setattr("mbrl.study.local_engine.LocalEngine", lambda site, jobs: InlineEngine(site))


def call(*args: object, status: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == status, (result.output, result.stderr, result.exception)
    return result


def call_json(*args: object, status: int = 0) -> dict[str, Any]:
    return json.loads(call(*args, "--json", status=status).stdout)


def test_a_comparison_of_logs_without_a_simulator(tmp_path: Path) -> None:
    config = write_study_config(tmp_path, algorithms={"bc": BC}, log_interval=1)
    value = call_json("compare", config, "--runs", tmp_path / "runs", "--set", "algorithms.bc.updates=9")
    assert value["path"] == str(tmp_path / "runs" / "studies" / "toy-study" / "index.html")
    assert [(run["seed"], run["status"], run["updates"]) for run in value["runs"]] == [
        (0, "done", 9),
        (1, "done", 9),
    ]
    nothing = dict.fromkeys(("mean_return", "mean_score", "last_mean_return", "last_mean_score"))
    assert value["means"] == {"toy": {"bc": {"seeds": 2, **nothing}}}
    assert value["selection"] == "last"
    study = studies[-1]
    assert [row["step"] for row in study.runs[0].records] == list(range(1, 10))
    assert study.datasets[0].report.may_train
    assert (study.algorithms["bc"].learner, study.algorithms["bc"].needs_dynamics) == ("bc", False)


def test_a_failed_run_ends_with_status_3_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_study_config(tmp_path, algorithms={"bc": BC})
    arguments = ("compare", config, "--runs", tmp_path / "runs", "--out", tmp_path / "page")
    killing = lambda site, jobs: InlineEngine(site, killed=["train.toy.bc.s1"])  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr("mbrl.study.local_engine.LocalEngine", killing)
        result = call(*arguments, status=RUNS_FAILED)
    assert "failed: bc on toy, seed 1: Its worker was killed." in result.stdout
    assert "FAILED: train bc on toy, seed 1: Its worker was killed." in result.stderr
    folder = tmp_path / "runs" / "studies" / "toy-study"
    state = call_json("status", folder)
    assert state["counts"] == {"done": 1, "running": 0, "failed": 1, "missing": 0}
    assert state["causes"] == {"train.toy.bc.s1": "Its worker was killed."}
    assert "Its worker was killed." in call("status", folder).stdout
    value = call_json(*arguments)
    assert [run["status"] for run in value["runs"]] == ["done", "done"]
    assert value["path"] == str(tmp_path / "page" / "index.html")
    assert call_json("status", folder)["counts"]["done"] == 2


def test_runs_and_a_folder_of_runs_are_shown_as_before(tmp_path: Path) -> None:
    config = write_study_config(tmp_path, algorithms={"bc": BC}, seeds=[0])
    call("compare", config, "--runs", tmp_path / "runs")
    for arguments in (["--runs", tmp_path / "runs"], [tmp_path / "runs"]):
        rows = call_json("status", *arguments)["runs"]
        assert [(row["stage"], row["is_done"], row["status"]) for row in rows] == [
            ("train_policy", True, "done")
        ]


@pytest.mark.slow
def test_the_smoke_comparison_collects_fits_trains_and_evaluates(tmp_path: Path) -> None:
    small = ["--set", "datasets.random={collect: pendulum/random, steps: 2000}", "--set", "seeds=[0]"]
    value = call_json("compare", "smoke", "--runs", tmp_path, *small)
    assert {(run["dataset"], run["algorithm"], run["status"]) for run in value["runs"]} == {
        (dataset, algorithm, "done") for dataset in ("mixed", "random") for algorithm in ("bc", "mopo")
    }
    study = studies[-1]
    assert all(len(run.returns) == 2 and run.scores is not None for run in study.runs)
    assert all((run.fit_seconds is None) == (run.algorithm == "bc") for run in study.runs)
    random = study.datasets[1]
    assert len(random.returns) == 10  # episodes of 200 steps
    assert list(random.dynamics) == [0]
    run = next(run for run in study.runs if (run.dataset, run.algorithm) == ("random", "bc"))
    alone = call_json("evaluate", run.path, "--runs", tmp_path)
    assert tuple(alone["episode_returns"]) == run.returns


def test_a_slip_ends_with_status_1_before_anything_runs(tmp_path: Path) -> None:
    config = write_study_config(tmp_path, datasets={"toy": "nowhere"})
    assert "no dataset 'nowhere'" in call("compare", config, "--runs", tmp_path, status=1).stderr
    assert "mbrl train --config demo-bc" in call("compare", "demo-bc", status=1).stderr
    assert "mbrl compare smoke" in call("train", "--config", "smoke", status=1).stderr
    assert "belongs to the engine ray" in call("compare", "smoke", "--address", "x", status=1).stderr


def test_the_board_shows_running_tasks_totals_and_failures(tmp_path: Path) -> None:
    plan, site = toy_plan(tmp_path, tmp_path / "runs", algorithms={"bc": BC})
    state = SweepState(StudyFolder(site.folder.path), plan.tasks, slots=1)
    state.running["train.toy.bc.s0"] = 0.0
    site.folder.progress_path("train.toy.bc.s0").write_text(
        json.dumps({"label": "train", "done": 5, "total": 20, "note": "careful"})
    )
    console = progress.stderr()
    with console.capture() as capture:
        console.print(progress.draw(state))
    text = capture.get()
    assert "train bc on toy, seed 0" in text
    assert "5/20" in text
    assert "careful" in text
    assert "0 of 2 tasks done, 1 running, time left unknown yet" in text
    state.running.clear()
    task = plan.tasks[0]
    state.outcomes[task.id] = Outcome(task.id, "failed", "", cause="why", trace="file")
    assert progress.describe_end(state, task) == "FAILED: train bc on toy, seed 0: why Traceback: file"
    assert [progress.clock(seconds) for seconds in (59.6, 61.0, 3661.0)] == ["1:00", "1:01", "1:01:01"]


def test_policies_that_were_not_trained_stand_beside_those_that_were(tmp_path: Path) -> None:
    """The same figures for every seed: a policy that is given has no training to vary."""
    config = write_study_config(
        tmp_path, algorithms={"bc": BC}, datasets={"swing": "pendulum-mixed"}, evaluation={"episodes": 2}
    )
    still = mbrl.Policy.from_callable(lambda obs: 0.0 * obs[:, :1], name="still")
    result = mbrl.compare(config, policies={"still": still}, store=tmp_path / "runs", progress=False)
    given = result.study.of("swing", "still")
    assert [run.seed for run in given] == list(result.study.seeds)
    alone = mbrl.evaluate(still, task="pendulum", episodes=2, progress=False)
    assert {run.returns for run in given} == {alone.evaluation.episode_returns}
    assert result.is_complete
    with pytest.raises(ConfigError, match="an algorithm 'bc' already"):
        mbrl.compare(config, policies={"bc": still}, store=tmp_path / "runs", progress=False)
