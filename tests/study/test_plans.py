"""Planners as entries of a comparison: what they share with the bare policy, and how they are judged."""

from pathlib import Path

import pytest

from mbrl.report.study.page import write_study
from mbrl.study.facts import gather_study
from mbrl.study.layout import plan_study
from tests.run.toy import TINY_DYNAMICS
from tests.study.toy_study import BC, sweep_inline, toy_plan

ALGORITHMS = {
    "bc": BC,
    "planned": {
        **BC,
        "planner": {
            "file": "sampled_gumbel", "sims": 2, "certificate_states": 0, "gate": {"by": "none"},
            "planner": {"max_depth": 1}, "unsettled_critic": "use",
            "fqe": {"updates": 20, "hidden": [8], "batch_size": 32},
        },
    },
}  # fmt: skip


def test_a_planner_needs_the_model_that_its_training_does_not(tmp_path: Path) -> None:
    plan, site = toy_plan(tmp_path, tmp_path / "runs", algorithms=ALGORITHMS, seeds=[0])
    assert [task.id for task in plan.chain("toy", "planned", 0)] == ["fit.toy.s0", "train.toy.planned.s0"]
    assert [task.id for task in plan.chain("toy", "bc", 0)] == ["train.toy.bc.s0"]
    other = {**ALGORITHMS, "planned": {**ALGORITHMS["planned"], "planner": "mppi"}}
    changed, _ = toy_plan(tmp_path, tmp_path / "runs", algorithms=other, seeds=[0])
    assert changed.chain("toy", "bc", 0) == plan_study(plan.source, site).chain("toy", "bc", 0)


@pytest.mark.slow
def test_a_planner_is_judged_beside_the_bare_policy_of_the_same_training(tmp_path: Path) -> None:
    plan, site = toy_plan(
        tmp_path, tmp_path / "runs",
        datasets={"pendulum": "pendulum-mixed"}, algorithms=ALGORITHMS, seeds=[0], dynamics=TINY_DYNAMICS,
        evaluation={"episodes": 1},
    )  # fmt: skip
    state, _ = sweep_inline(plan, site)
    assert state.counts() == {"done": len(plan.tasks)}
    assert len(list(site.runs.glob("*/train_policy*"))) == 1
    assert len(list(site.runs.glob("*/fit_dynamics*"))) == 1
    study = gather_study(plan, site, command="mbrl compare toy")
    planned, bare = study.of("pendulum", "planned")[0], study.of("pendulum", "bc")[0]
    assert planned.status == bare.status == "done"
    assert planned.scores is not None
    assert planned.returns != bare.returns
    assert study.algorithms["planned"].needs_dynamics
    assert study.algorithms["planned"].config["planner"]["planner"]["name"] == "sampled_gumbel"
    (entry,) = study.plannings
    assert (entry["dataset"], entry["algorithm"], entry["seeds"]) == ("pendulum", "planned", 1)
    assert entry["mean_return"] == pytest.approx(sum(planned.returns) / len(planned.returns))
    assert entry["policy_return"] == pytest.approx(sum(bare.returns) / len(bare.returns))
    page = write_study(study, tmp_path / "page")
    assert "planned on pendulum" in page.read_text()
    assert "planned on pendulum" in (tmp_path / "page" / "summary.md").read_text()
