import json
from pathlib import Path

import numpy as np
import pytest

from mbrl.data.open import open_dataset
from mbrl.run.stage import Workspace
from mbrl.run.store import RunStore
from mbrl.study.demo import METHODS, run_demo

QUICK = [
    "algorithm.updates=20",
    "algorithm.learner.hidden=[8]",
    "algorithm.learner.batch_size=32",
    "dynamics.hidden=[32]",
    "dynamics.max_updates=400",
    "dynamics.assessment.trust_error=100",
    "dynamics.assessment.trust_coverage=0",
    "dynamics.assessment.segments=20",
    "dynamics.assessment.particles=10",
    "evaluation.episodes=2",
]


@pytest.mark.slow
def test_the_demo_runs_every_stage_once_and_repeats_its_figures(tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path / "runs"))
    first = run_demo(workspace, out=tmp_path, arguments={}, overrides=QUICK)
    data = open_dataset("pendulum-mixed")
    assert first.values["behaviour"] == pytest.approx(float(data.episode_returns.mean()))
    tenth = np.sort(data.episode_returns)[-round(0.1 * len(data)) :].mean()
    assert first.comparison.best_tenth == pytest.approx(float(tenth))
    assert [method.name for method in first.comparison.methods] == list(METHODS) == ["mopo", "bc"]
    stages = {run.manifest()["stage"]: run for run in workspace.store.runs()}
    assert set(stages) == {"fit_dynamics", "train_policy", "evaluate"}
    assert set(first.values["seconds"]) == {
        "inspect", "fit", "train mopo", "train bc", "evaluate mopo", "evaluate bc",
    }  # fmt: skip
    assert "<html" in first.page.read_text()
    again = run_demo(workspace, out=tmp_path, arguments={}, overrides=QUICK)
    for key in ("mopo", "bc", "behaviour"):
        assert again.values[key] == first.values[key]
    assert json.loads((tmp_path / "demo.json").read_text())["mopo"] == first.values["mopo"]
    assert all(run.manifest()["resumes"] == 0 for run in workspace.store.runs())
