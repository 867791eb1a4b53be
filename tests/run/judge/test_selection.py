import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mbrl.core.errors import ConfigError
from mbrl.core.progress import SilentProgress
from mbrl.core.rng import RngStreams
from mbrl.core.types import SpaceSpec
from mbrl.nets.actors import ActorSpec, build_actor
from mbrl.nets.normaliser import Normaliser
from mbrl.off_policy.value.fqe import FQEConfig
from mbrl.report.study.fact_tables import choice_tables
from mbrl.run.judge.rule import SelectRule
from mbrl.run.judge.selection import Candidate, Contestant, Selection, choose, select_by_values
from mbrl.run.judge.value_fits import KeptFits
from mbrl.run.policies import open_policy, save_policy
from mbrl.study.config import load_study
from mbrl.study.facts import gather_study, summarise_run
from tests.off_policy.lqg import LinearPolicy, scalar_task
from tests.study.toy_study import BC, sweep_inline, toy_plan, toy_tree

GRID = {**BC, "grid": {"learner.learning_rate": [0.001, 0.01], "learner.hidden": [[8], [4]]}}
RULE: dict[str, Any] = {
    "rule": "fqe",
    "discount": 0.9,
    "horizon": 5,
    "fqe": {"hidden": [4], "updates": 5, "batch_size": 16},
}


def contestant(low: float, problem: str | None = None) -> Contestant:
    return Contestant({}, "", low, 0.0, problem)


def write(folder: Path, **changes: Any) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(toy_tree(folder / "toy", **changes)))
    return str(path)


def test_the_highest_bound_that_can_be_trusted_wins():
    assert choose([contestant(1.0), contestant(3.0), contestant(2.0)]) == 1
    assert choose([contestant(1.0), contestant(3.0, "it moved"), contestant(2.0)]) == 2
    assert choose([contestant(1.0, "it moved"), contestant(3.0, "it moved")]) == 1
    assert choose([contestant(2.0), contestant(2.0)]) == 0
    assert choose([contestant(math.nan, "diverged"), contestant(-9.0, "it moved")]) == 1


def test_of_two_controllers_the_better_one_is_chosen_from_the_log(tmp_path: Path):
    """`a = -0.9 s` brings the state to rest, `a = +0.1 s` nearly lets it drift."""
    task, trainings = scalar_task(), []
    spec = ActorSpec("deterministic", SpaceSpec(1, 1, (-8.0,), (8.0,)), hidden=())
    for gain in (0.1, -0.9):
        actor = build_actor(spec, Normaliser.identity(1), torch.Generator().manual_seed(0))
        with torch.no_grad():
            for parameter in actor.parameters():  # one weight and one bias, flat
                parameter.copy_(torch.tensor([[gain / 8.0, 0.0]]))
        path = save_policy(tmp_path / f"{gain}.safetensors", actor, {})
        trainings.append(Candidate({"gain": gain}, path, open_policy(path).policy))
    noisy = LinearPolicy(torch.tensor([[0.4]]), 8.0, 0.8)
    log = task.simulate(dataclasses.replace(noisy), 60, 10, 0)
    fqe = FQEConfig(hidden=(32,), updates=800, learning_rate=3e-3, polyak_tau=0.05, batch_size=64)
    rule = SelectRule(rule="fqe", discount=0.8, horizon=10, fqe=fqe)
    kept = KeptFits(tmp_path / "fits", "digest", SilentProgress())
    found = select_by_values(trainings, log, rule, rng=RngStreams(0), kept=kept)
    assert found.winner.changes == {"gain": -0.9}
    assert found.contestants[1].low < found.contestants[1].point
    again = Selection.load(found.save(tmp_path / "s" / "selection.json"))
    assert again == found
    json.dumps(json.loads((tmp_path / "s" / "selection.json").read_text()), allow_nan=False)


def test_a_grid_is_trained_whole_and_only_the_chosen_is_reported(tmp_path: Path):
    plan, site = toy_plan(tmp_path, tmp_path / "runs", algorithms={"bc": GRID}, seeds=[0], select=RULE)
    assert [task.id for task in plan.tasks] == [
        *(f"train.toy.bc+{k}.s0" for k in range(4)),
        "select.toy.bc.s0",
    ]
    state, _ = sweep_inline(plan, site)
    assert state.counts() == {"done": 5}
    chosen = Selection.load(Path(site.folder.outcome("select.toy.bc.s0").path))
    assert [item.changes for item in chosen.contestants] == [
        {"learner.learning_rate": rate, "learner.hidden": hidden}
        for rate in (0.001, 0.01)
        for hidden in ([8], [4])
    ]
    study = gather_study(plan, site, command="")
    (run,) = study.runs
    assert (study.selection, run.status, run.path) == ("fqe", "done", chosen.winner.path)
    assert "of 4, lower bound" in summarise_run(run)["choice"]
    assert choice_tables(study)[0].rows[0][:3] == ("toy", "bc", 0)
    again, started = sweep_inline(plan, site)
    assert (again.counts(), started) == ({"done": 5}, [])
    other = {**RULE, "discount": 0.5}
    plan, site = toy_plan(tmp_path, tmp_path / "runs", algorithms={"bc": GRID}, seeds=[0], select=other)
    assert sweep_inline(plan, site)[1] == ["select.toy.bc.s0"]


def test_without_a_grid_a_rule_has_nothing_to_choose(tmp_path: Path):
    plan, _ = toy_plan(tmp_path, tmp_path / "runs", algorithms={"bc": BC}, seeds=[0], select=RULE)
    assert [task.id for task in plan.tasks] == ["train.toy.bc.s0"]


def test_the_bare_name_of_a_rule_stands_for_its_defaults(tmp_path: Path):
    source = load_study(write(tmp_path, algorithms={"bc": GRID}, select="fqe"))
    assert source.config.select == SelectRule(rule="fqe")
    assert load_study(write(tmp_path)).config.select.rule == "last"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": {"bc": GRID}}, "nothing to choose by"),
        ({"algorithms": {"bc": {**BC, "grid": {"updates": 3}}}, "select": RULE}, "lists of values"),
        ({"algorithms": {"bc": {**BC, "grid": {"updtes": [3]}}}, "select": RULE}, "updtes"),
        ({"select": "online_score"}, "select"),
    ],
)
def test_slips_are_told_before_anything_runs(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, **changes))
