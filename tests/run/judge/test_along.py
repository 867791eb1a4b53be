"""The choice among the policies that a training passes through."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mbrl.core.errors import ConfigError, DataError, MbrlError
from mbrl.core.progress import SilentProgress
from mbrl.run.config import ResolvedConfig, resolve
from mbrl.run.judge import along
from mbrl.run.judge.along import rule_of, select_along
from mbrl.run.judge.rule import SelectRule, kept_steps
from mbrl.run.judge.selection import Selection
from mbrl.run.plan.basis import open_basis
from mbrl.run.plan.config import parse_plan_config
from mbrl.run.plan.critics import find_critics
from mbrl.run.policies import load_policy, open_policy
from mbrl.run.records import TrainingSummary
from mbrl.run.stage import Workspace
from mbrl.run.store import RunFolder, RunStore
from mbrl.run.train import train_policy_stage
from tests.run.toy import TINY_DYNAMICS, make_dataset, write_dataset

JUDGES = ["judges.max_updates=40", "judges.draws=mean", "judges.starts=6", "judges.horizon=5"]
SMALL = [
    "algorithm.updates=20",
    "algorithm.learner.hidden=[8]",
    "algorithm.learner.batch_size=16",
    "log_interval=5",
    "checkpoint_interval=10",
    "diagnostics=false",
]
MOPO = ["algorithm.rollout.starts=8", "algorithm.rollout.respect_trusted_horizon=false"]


@pytest.fixture(scope="module")
def dataset_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


def config(dataset: Path, *overrides: str, algorithm: str = "mopo") -> ResolvedConfig:
    values: dict[str, Any] = {"dataset": str(dataset), "algorithm": algorithm, "dynamics": TINY_DYNAMICS}
    own = MOPO if algorithm == "mopo" else []
    return resolve(arguments=values, overrides=[*SMALL, *own, *JUDGES, "select.kept=4", *overrides])


@pytest.fixture(scope="module")
def judged(dataset_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    store = RunStore(tmp_path_factory.mktemp("whole"))
    return train_policy_stage(config(dataset_path), Workspace(store))


def found_in(run: RunFolder) -> dict[str, Any]:
    return run.summary(TrainingSummary)["selection"]


def test_the_best_bound_is_the_result_and_the_last_policy_stays_beside_it(judged: RunFolder, tmp_path: Path):
    (tmp_path / "selection.json").write_text(json.dumps(found_in(judged)))
    selection = Selection.load(tmp_path / "selection.json")
    assert selection.rule == "judge"
    assert [one.changes["updates"] for one in selection.contestants] == [5, 10, 15, 20]
    lows = [one.low for one in selection.contestants]
    assert lows[selection.chosen] == max(lows)
    chosen = judged.path / selection.winner.path
    assert (judged.path / "policy.safetensors").read_bytes() == chosen.read_bytes()
    assert open_policy(judged.path).facts["updates"] == selection.winner.changes["updates"]
    assert open_policy(judged.path, "last").facts["updates"] == 20
    assert len(list(judged.path.parent.glob("fit_dynamics-judge-*"))) == 2
    json.dumps(judged.summary(), allow_nan=False)


def test_judges_were_fitted_with_other_episodes_held_out_and_share_no_bit_with_the_own_model(
    judged: RunFolder,
):
    fits = sorted(judged.path.parent.glob("fit_dynamics-*"))
    assert [path.name.rsplit("-", 1)[0] for path in fits] == [
        "fit_dynamics-ensemble-s0",
        "fit_dynamics-judge-s0",
        "fit_dynamics-judge-s1",
    ]
    contents = {(path / "dynamics.safetensors").read_bytes() for path in fits}
    assert len(contents) == 3


def test_selection_adds_nothing_to_the_training(dataset_path: Path, tmp_path: Path, judged: RunFolder):
    plain = train_policy_stage(config(dataset_path, "select=last"), Workspace(RunStore(tmp_path)))
    first = load_policy(plain.path / "policy.safetensors").network.state_dict()
    second = open_policy(judged.path, "last").network.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (plain.path / "kept").exists()
    assert plain.summary().get("selection") is None


class _Kill(SilentProgress):
    """Dies at the n-th sign of life."""

    def __init__(self, at: int) -> None:
        self.left = at

    def advance(self, done: int, **figures: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_killed_anywhere_and_resumed_the_result_is_the_same(
    dataset_path: Path, tmp_path: Path, judged: RunFolder
):
    store = RunStore(tmp_path)
    run, kills = None, 0
    for at in (1, 3, 9, 14, 18, 22, 10**9):
        try:
            run = train_policy_stage(config(dataset_path), Workspace(store, _Kill(at)))
            break
        except KeyboardInterrupt:
            kills += 1
    assert run is not None
    assert kills >= 4
    for name in ("policy.safetensors", "policy-last.safetensors"):
        assert (run.path / name).read_bytes() == (judged.path / name).read_bytes()
    mine, theirs = found_in(run), found_in(judged)
    for facts in (mine["facts"], theirs["facts"]):
        for judge in facts["judges"]:
            judge["path"] = Path(judge["path"]).name
        facts["warnings"] = []  # they name paths
    assert mine == theirs
    assert run.summary()["exploitation"] == judged.summary()["exploitation"]


def test_killed_while_it_is_judged_nothing_is_taken_for_finished(
    dataset_path: Path, tmp_path: Path, judged: RunFolder, monkeypatch: pytest.MonkeyPatch
):
    def die(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(along, "select_by_judges", die)
        with pytest.raises(KeyboardInterrupt):
            train_policy_stage(config(dataset_path), Workspace(RunStore(tmp_path)))
    (folder,) = tmp_path.glob("*/train_policy-*")
    assert not (folder / "policy.safetensors").exists()
    run = train_policy_stage(config(dataset_path), Workspace(RunStore(tmp_path)))
    assert (run.path / "policy.safetensors").read_bytes() == (judged.path / "policy.safetensors").read_bytes()


def test_own_model_and_judges_are_compared_along_the_training(judged: RunFolder):
    found = judged.summary()["exploitation"]
    assert len(found["own"]) == 4
    last = next(belief for belief in found["beliefs"] if "last" in belief["name"])
    assert last["gap"] == pytest.approx(last["own"] - last["judges"])
    assert last["own"] == pytest.approx(found["own"][-1])


def test_model_free_runs_take_the_last_policy_unless_they_ask(dataset_path: Path, tmp_path: Path):
    assert rule_of(config(dataset_path).run) == "judge"
    assert rule_of(config(dataset_path, algorithm="bc").run) == "last"
    assert rule_of(config(dataset_path, "judges.count=0").run) == "last"
    run = train_policy_stage(
        config(dataset_path, "select.rule=judge", algorithm="bc"), Workspace(RunStore(tmp_path))
    )
    assert found_in(run)["rule"] == "judge"
    assert run.summary()["exploitation"] is None
    with pytest.raises(ConfigError, match=r"judges\.count=2"):
        rule_of(config(dataset_path, "select.rule=judge", "judges.count=0").run)


def test_fitted_values_may_choose_as_well(dataset_path: Path, tmp_path: Path):
    fqe = ["select.fqe.hidden=[4]", "select.fqe.updates=5", "select.fqe.batch_size=16", "select.horizon=5"]
    resolved = config(dataset_path, "select.rule=fqe", *fqe, algorithm="bc")
    run = train_policy_stage(resolved, Workspace(RunStore(tmp_path)))
    assert found_in(run)["rule"] == "fqe"
    assert not (run.path / "selection").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["select.rule=judge", "judges.termination=task"], "known rule"),
        (["select.rule=judge", "judges.horizon=31"], "an episode has at most 30"),
        (["select.rule=fqe", "select.horizon=31"], "an episode has at most 30"),
    ],
)
def test_a_choice_that_the_log_cannot_make_is_refused_before_the_training(
    dataset_path: Path, tmp_path: Path, changes: list[str], message: str
):
    with pytest.raises(MbrlError, match=message):
        train_policy_stage(config(dataset_path, *changes, algorithm="bc"), Workspace(RunStore(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_a_log_without_rewards_is_cloned_but_not_judged(tmp_path: Path):
    log = make_dataset()
    silent = tuple(
        dataclasses.replace(episode, rewards=np.full(len(episode), np.nan, np.float32), has_rewards=False)
        for episode in log.episodes
    )
    log = dataclasses.replace(log, episodes=silent)
    asked = config(tmp_path, "select.rule=judge", algorithm="bc")
    with pytest.raises(DataError, match="A choice by judges"):
        train_policy_stage(asked, Workspace(RunStore(tmp_path / "runs")), dataset=log)
    assert not (tmp_path / "runs").exists()


def test_a_longer_training_goes_on_only_from_one_that_kept_what_it_may_select(
    dataset_path: Path, tmp_path: Path
):
    select = "select.rule=judge"

    def run(updates: int, store: Path) -> RunFolder:
        resolved = config(dataset_path, select, f"algorithm.updates={updates}", algorithm="td3_bc")
        return train_policy_stage(resolved, Workspace(RunStore(store)))

    run(20, tmp_path / "parts")
    longer, whole = run(40, tmp_path / "parts"), run(40, tmp_path / "whole")
    assert longer.manifest()["continues"]["updates"] == 20
    for name in ("policy.safetensors", "policy-last.safetensors", "kept/step-000000010.safetensors"):
        assert (longer.path / name).read_bytes() == (whole.path / name).read_bytes()
    other = run(28, tmp_path / "parts")  # it keeps 7, 14, 21, 28
    assert "continues" not in other.manifest()


def test_lost_policies_are_told_and_the_others_chosen_from(dataset_path: Path, tmp_path: Path):
    told: list[str] = []

    class Listener(SilentProgress):
        def message(self, text: str) -> None:
            told.append(text)

    resolved = config(dataset_path, "select.rule=judge", algorithm="bc")
    store = RunStore(tmp_path)
    run = train_policy_stage(resolved, Workspace(store))
    (run.path / "kept" / "step-000000005.safetensors").unlink()
    (run.path / "DONE").unlink()
    again = train_policy_stage(resolved, Workspace(store, Listener()))
    assert [one["changes"]["updates"] for one in found_in(again)["contestants"]] == [10, 15, 20]
    assert any("1 of 4 kept policies are gone" in text for text in told)


def test_planners_take_the_learners_critics_only_of_the_last_policy(
    dataset_path: Path, tmp_path: Path, judged: RunFolder
):
    basis = open_basis(judged.path, Workspace(RunStore(tmp_path)))
    assert basis.is_last == (found_in(judged)["chosen"] == 3)
    early = dataclasses.replace(
        basis, stored=load_policy(judged.path / "kept" / "step-000000005.safetensors")
    )
    assert not early.is_last
    with pytest.raises(ConfigError, match="selected from before its last update"):
        find_critics(
            early,
            parse_plan_config({"file": "cem", "critic": "learner"}, where="test"),
            Workspace(RunStore(tmp_path)),
        )


def test_policies_are_kept_at_even_intervals_and_the_last_always():
    assert kept_steps(50_000, 20)[:2] == (2500, 5000)
    assert kept_steps(3, 20) == (1, 2, 3)
    assert set(kept_steps(100_000, 20)) & set(range(50_001)) <= set(kept_steps(50_000, 20))
    assert SelectRule().kept == 20
    assert callable(select_along)
