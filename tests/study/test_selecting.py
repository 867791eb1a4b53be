"""Comparisons under the rule `judge`: the same for every method, the last policy beside the selected one."""

from pathlib import Path
from typing import Any

import yaml

from mbrl.study.config import load_study
from mbrl.study.facts import gather_study, summarise_run
from mbrl.study.folder import StudyFolder
from mbrl.study.layout import plan_study
from mbrl.study.tasks import Site
from tests.run.toy import TINY_DYNAMICS
from tests.study.toy_study import BC, MOPO, sweep_inline, toy_plan

JUDGES: dict[str, Any] = {"max_updates": 20, "draws": "mean", "starts": 5, "horizon": 4}
SELECT: dict[str, Any] = {"rule": "judge", "kept": 2}


def test_every_method_is_judged_by_models_that_are_made_once(tmp_path: Path):
    grid = {**BC, "grid": {"learner.learning_rate": [0.001, 0.01]}}
    plan, site = toy_plan(
        tmp_path, tmp_path / "runs",
        algorithms={"bc": grid, "mopo": MOPO}, seeds=[0], select=SELECT, judges=JUDGES,
    )  # fmt: skip
    assert [task.id for task in plan.tasks] == [
        "judge.toy.0",
        "judge.toy.1",
        "judges.toy",
        "train.toy.bc+0.s0",
        "train.toy.bc+1.s0",
        "select.toy.bc.s0",
        "fit.toy.s0",
        "train.toy.mopo.s0",
    ]
    assert plan.tasks[2].needs == ("judge.toy.0", "judge.toy.1")
    assert plan.tasks[3].needs == ("judges.toy",)
    assert plan.tasks[6].needs == ()  # a fit beside those of the judges
    state, _ = sweep_inline(plan, site)
    assert state.counts() == {"done": 8}
    assert len(list((tmp_path / "runs").glob("*/fit_dynamics-judge-*"))) == 2
    study = gather_study(plan, site, command="")
    assert study.selection == "judge"
    for run in study.runs:
        assert run.selected is not None
        assert run.selected["updates"] in {10, 20}
        assert summarise_run(run)["selected"]["honest"] is not None
    assert "of 2, lower bound" in str(study.runs[0].choice)


def test_where_there_is_a_simulator_last_and_selected_are_both_evaluated(tmp_path: Path):
    tree = {
        "datasets": {"mixed": "pendulum-mixed"},
        "dynamics": TINY_DYNAMICS,
        "algorithms": {"bc": BC, "mopo": MOPO},
        "seeds": [0],
        "judges": JUDGES,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(tree))
    source = load_study(str(path))
    assert source.rule == "judge"  # since a method needs a model
    assert {source.resolve(name, seed=0).run.select.rule for name in ("bc", "mopo")} == {"judge"}
    plan = plan_study(source, Site(StudyFolder(tmp_path / "runs" / "s"), tmp_path / "runs"))
    chain = [task.kind for task in plan.chain("mixed", "bc", 0)]
    assert chain == ["judge", "judge", "judges", "train", "evaluate-last", "evaluate"]
    path.write_text(yaml.safe_dump({**tree, "algorithms": {"bc": BC}}))
    assert load_study(str(path)).rule == "last"
    path.write_text(yaml.safe_dump({**tree, "select": "last"}))
    last = load_study(str(path))
    assert last.resolve("mopo", seed=0).run.select.rule == "last"
