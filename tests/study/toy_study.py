"""A comparison on the toy dataset, and an engine that works in the test's own process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mbrl.study.config import load_study
from mbrl.study.folder import StudyFolder
from mbrl.study.layout import StudyPlan, begin_study, plan_study
from mbrl.study.sweep import Ended, SweepState, run_sweep
from mbrl.study.tasks import Site, Task, execute
from tests.run.toy import TINY_DYNAMICS, write_dataset

LEARNER: dict[str, Any] = {"hidden": [8], "batch_size": 16}
ROLLOUT: dict[str, Any] = {"starts": 8, "respect_trusted_horizon": False}
BC: dict[str, Any] = {"file": "bc", "updates": 20, "learner": LEARNER}
MOPO: dict[str, Any] = {
    "file": "mopo",
    "updates": 20,
    "learner": LEARNER,
    "rollout": ROLLOUT,
    "refresh_interval": 10,
}


def toy_tree(dataset: Path, **changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {
        "datasets": {"toy": str(dataset)},
        "dynamics": TINY_DYNAMICS,
        "algorithms": {"bc": BC, "mopo": MOPO, "mbpo": {**MOPO, "file": "mbpo"}},
        "seeds": [0, 1],
        "select": "last",
        "log_interval": 5,
        "checkpoint_interval": 10,
    }
    return {**tree, **changes}


def write_study_config(folder: Path, **changes: Any) -> Path:
    """Writes dataset and yaml into `folder`, if they are not there."""
    dataset = folder / "toy"
    if not dataset.exists():
        write_dataset(folder)
    path = folder / "toy-study.yaml"
    path.write_text(yaml.safe_dump(toy_tree(dataset, **changes), sort_keys=False))
    return path


def toy_plan(folder: Path, runs: Path, **changes: Any) -> tuple[StudyPlan, Site]:
    source = load_study(str(write_study_config(folder, **changes)))
    site = Site(StudyFolder(runs / "studies" / source.name), runs)
    plan = plan_study(source, site)
    begin_study(plan, site)
    return plan, site


class InlineEngine:
    """Does one task at a time, at once."""

    slots = 1

    def __init__(self, site: Site, *, killed: Sequence[str] = ()) -> None:
        self.site, self.killed = site, killed
        self.started: list[str] = []

    def submit(self, task: Task) -> None:
        self.started.append(task.id)
        self.ended = [Ended(task, "Its worker was killed." if task.id in self.killed else None)]
        if task.id not in self.killed:
            execute(task, self.site)

    def wait(self, seconds: float) -> list[Ended]:
        return self.ended

    def close(self) -> None:
        pass


class Silent:
    """Sees every state and says nothing."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def show(self, state: SweepState, ended: Sequence[Task]) -> None:
        self.ended += [task.id for task in ended]


def sweep_inline(plan: StudyPlan, site: Site, **kwargs: Any) -> tuple[SweepState, list[str]]:
    """The final state, and the ids of the tasks that were started."""
    engine = InlineEngine(site, **kwargs)
    return run_sweep(plan.tasks, site.folder, engine, Silent()), engine.started
