"""A cluster of two nodes on this machine: one dies, its run restarts on the other, to the same bits."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mbrl.core.errors import MissingExtraError
from mbrl.run.store import RunStore
from mbrl.study.ray_engine import RayEngine
from mbrl.study.sweep import SweepState, run_sweep
from mbrl.study.tasks import Task
from tests.study.toy_study import LEARNER, Silent, sweep_inline, toy_plan

HAS_RAY = importlib.util.find_spec("ray") is not None
CHANGES: dict[str, Any] = {
    "algorithms": {"bc": {"file": "bc", "updates": 2500, "learner": LEARNER}},
    "seeds": [0, 1],
    "checkpoint_interval": 50,
}


@pytest.mark.skipif(HAS_RAY, reason="ray is installed")
def test_without_ray_the_error_names_the_extra(tmp_path: Path) -> None:
    _, site = toy_plan(tmp_path, tmp_path / "runs", **CHANGES)
    with pytest.raises(MissingExtraError, match=r"mbrl-offline\[ray\]"):
        RayEngine(site)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_runs_of_a_node_that_dies_continue_on_another(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    whole = toy_plan(tmp_path, tmp_path / "whole", **CHANGES)
    sweep_inline(*whole)
    plan, site = toy_plan(tmp_path, tmp_path / "runs", **CHANGES)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1)]

    class Killer(Silent):
        def show(self, state: SweepState, ended: Sequence[Task]) -> None:
            checkpoints = {path.parent for path in site.runs.glob("toy/*/checkpoints/step-*.pt")}
            if nodes and len(checkpoints) == 2 and not state.outcomes:
                cluster.remove_node(nodes.pop())

    engine = RayEngine(site, address=cluster.address)
    try:
        state = run_sweep(plan.tasks, site.folder, engine, Killer())
    finally:
        engine.close()
        cluster.shutdown()
    assert not nodes
    assert state.counts() == {"done": 2}
    assert sorted(run.manifest()["resumes"] for run in RunStore(site.runs).runs()) == [0, 1]
    for outcome in state.outcomes.values():
        policy = Path(outcome.path or "") / "policy.safetensors"
        twin = whole[1].runs / policy.relative_to(site.runs)
        assert policy.read_bytes() == twin.read_bytes()
