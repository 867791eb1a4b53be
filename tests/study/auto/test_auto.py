"""From one log to one policy, at toy size."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import mbrl
from mbrl.core.errors import ConfigError, DataError, MbrlError
from mbrl.core.progress import SilentProgress
from mbrl.data.dataset import Dataset
from mbrl.data.open import open_dataset
from mbrl.data.options import LoadOptions
from mbrl.dynamics.gap_report import GapReport
from mbrl.report.auto.facts import AutoReport
from mbrl.report.auto.page import auto_page
from mbrl.report.auto.tables import candidate_table, result_lines
from mbrl.report.kit.table import to_text
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from mbrl.study.auto.config import load_auto
from mbrl.study.auto.record import save_report
from mbrl.study.auto.run import AutoJob, run_auto
from mbrl.study.folder import StudyFolder
from mbrl.study.sweep import run_sweep
from mbrl.study.tasks import Site
from tests.run.toy import TINY_DYNAMICS, write_dataset
from tests.study.toy_study import BC, MOPO, InlineEngine, Silent

TREE: dict[str, Any] = {
    "dynamics": TINY_DYNAMICS,
    "algorithms": {"bc": BC, "mopo": MOPO},
    "judges": {"starts": 6, "horizon": 4, "draws": "mean", "max_updates": 20},
    "kept": 2,
    "least_updates": 5,
    "estimate_share": 0.2,
}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mbrl.study.auto.budget.PROBE_SECONDS", 0.01)
        yield


def portfolio(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**TREE, **changes}))
    return str(path)


class Words(SilentProgress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def message(self, text: str) -> None:
        self.texts.append(text)


def job(folder: Path, log: Path, *, minutes: float = 1.0, **changes: Any) -> tuple[AutoJob, list[str], Words]:
    """A job that works in this process, with the ids of the tasks that it starts, and what it says."""
    site, words = Site(StudyFolder(folder / "runs" / "auto"), folder / "runs"), Words()
    started: list[str] = []

    def sweep(tasks: Any) -> None:
        engine = InlineEngine(site)
        run_sweep(tasks, site.folder, engine, Silent())
        started.extend(engine.started)

    source = load_auto(portfolio(folder, **changes))
    workspace = Workspace(RunStore(folder / "runs"), words)
    data = open_dataset(str(log), LoadOptions())
    return AutoJob(source, data, str(log), site, workspace, minutes, 1, sweep, "again"), started, words


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def test_candidates_are_trained_judged_and_reported_and_nothing_is_done_twice(tmp_path: Path, log: Path):
    work, started, words = job(tmp_path, log)
    report = run_auto(work)
    assert started == [
        "judge.log.0",
        "judge.log.1",
        "judges.log",
        "fit.log.s0",
        "train.log.bc.s0",
        "train.log.mopo.s0",
    ]
    assert [one.label for one in report.candidates] == ["bc", "mopo"]
    assert [one.updates for one in report.candidates] == [20, 20]
    assert all(Path(one.path, one.policy).is_file() for one in report.candidates)
    assert report.behaviour is not None
    assert report.question.startswith("Asked: mean return of an episode of at most 4 steps")
    told = "\n".join(words.texts)
    assert "3 model fits" in told
    assert "bc: 20 of 20 updates" in told
    assert AutoReport.model_validate_json(save_report(report, tmp_path).read_text()) == report
    page = auto_page(report, command="again")
    for one in report.candidates:
        assert one.label in page
    again, more, _ = job(tmp_path, log)
    before = (tmp_path / "runs" / "auto" / "plan.json").read_text()
    repeated = run_auto(again)
    assert more == []
    assert (tmp_path / "runs" / "auto" / "plan.json").read_text() == before
    same = {"seconds": {}}
    assert repeated.model_copy(update=same) == report.model_copy(update=same)


def test_a_training_that_fails_costs_itself_alone(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch):
    work, _, _ = job(tmp_path, log)
    train = mbrl.study.layout.train_policy_stage

    def failing(resolved: Any, workspace: Any) -> Any:
        if resolved.run.recipe == "mopo":
            raise ConfigError("no luck")
        return train(resolved, workspace)

    monkeypatch.setattr("mbrl.study.layout.train_policy_stage", failing)
    report = run_auto(work)
    assert [one.label for one in report.candidates] == ["bc"]
    assert "no luck" in report.left_out["mopo"]


def test_too_little_time_is_refused_with_what_would_do(tmp_path: Path, log: Path):
    work, _, _ = job(tmp_path, log, minutes=1e-4, fit_share=0.1)
    with pytest.raises(ConfigError, match="too few"):
        run_auto(work)


def test_what_would_be_refused_later_is_refused_before_the_first_fit(tmp_path: Path, log: Path):
    work, started, _ = job(tmp_path, log)
    bare = tuple(dataclasses.replace(e, has_rewards=False) for e in work.dataset.episodes)
    with pytest.raises(DataError, match="rewards"):
        run_auto(dataclasses.replace(work, dataset=dataclasses.replace(work.dataset, episodes=bare)))
    with pytest.raises(MbrlError, match="horizon"):
        run_auto(job(tmp_path, log, judges={**TREE["judges"], "horizon": 10_000})[0])
    assert started == []


@pytest.mark.parametrize(("task", "expected"), [("cartpole", "discrete"), ("pendulum", "default")])
def test_actions_of_the_log_say_which_portfolio_it_gets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, expected: str
):
    asked: list[AutoJob] = []

    def stop(job: AutoJob) -> None:
        asked.append(job)
        raise ConfigError("far enough")

    monkeypatch.setattr("mbrl.api.auto.run_auto", stop)
    log = mbrl.collect(task, policy="random", steps=250, out=tmp_path / "log", progress=False)
    options = {"dataset_options": {"infos": "none"}}
    with pytest.raises(ConfigError, match="far enough"):
        mbrl.auto(str(tmp_path / "log"), store=tmp_path / "runs", progress=False, **options)
    with pytest.raises(ConfigError, match="far enough"):
        mbrl.auto(log, store=tmp_path / "runs", progress=False)
    assert [job.source.name for job in asked] == [expected, expected]
    assert asked[0].source.config.dataset_options.infos == "none"


@pytest.mark.slow
def test_the_api_and_the_command_give_the_same(tmp_path: Path, log: Path):
    config = portfolio(tmp_path)
    found = mbrl.auto(
        str(log), minutes=1.0, portfolio=config, jobs=1, store=tmp_path / "runs", progress=False
    )
    assert found.path.is_file()
    assert (found.policy is None) == (found.report.taken is None)
    values = found.to_dict()
    assert json.loads(json.dumps(values, allow_nan=False))["portfolio"] == "mine"
    assert "candidate" in str(found)
    assert isinstance(open_dataset(str(log), LoadOptions()), Dataset)
    assert len(found.runs) == 2
    with pytest.raises(ConfigError, match="no time"):
        mbrl.auto(str(log), minutes=0.0)
    with pytest.raises(DataError):
        mbrl.auto(tmp_path / "nothing", minutes=1.0, store=tmp_path / "runs")


def test_a_result_fits_a_terminal(tmp_path: Path, log: Path):
    report = run_auto(job(tmp_path, log)[0])
    names = ("td3_bc_in_model", "mopo_careful")
    wide = [
        one.model_copy(update={"label": name, "step": 41_133, "updates": 50_000, "mean": -1234.5})
        for one, name in zip(report.candidates, names, strict=True)
    ]
    text = to_text([candidate_table(report.model_copy(update={"candidates": tuple(wide)}))])
    assert all(name in text for name in names)
    assert max(map(len, text.splitlines())) <= 100
    lines = "\n".join(result_lines(report))
    assert "The behaviour returns" in lines
    assert ("Taken: " in lines) == (report.taken is not None)
    asked = report.model_copy(update={"next_to_log": ("Log more with x above 2.",)})
    assert result_lines(asked)[-1] == "Log more with x above 2."


def test_what_to_log_next_is_what_the_judge_does_not_know(tmp_path: Path, log: Path):
    work = job(tmp_path, log)[0]
    report = run_auto(work)
    reports = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("report.json")]
    gaps = [GapReport.model_validate(one["gaps"]).next_to_log() for one in reports if "gaps" in one]
    assert list(report.next_to_log) in gaps
