"""Worker processes: they die alone, do not outlive their parent, and leave what another can continue."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mbrl.study.layout import StudyPlan
from mbrl.study.local_engine import LocalEngine
from mbrl.study.sweep import SweepState, run_sweep
from mbrl.study.tasks import Site
from tests.study.toy_study import LEARNER, Silent, sweep_inline, toy_plan

pytestmark = pytest.mark.slow

LONG: dict[str, Any] = {"file": "bc", "updates": 2000, "learner": LEARNER}
CHANGES: dict[str, Any] = {"algorithms": {"bc": LONG}, "seeds": [0, 1], "checkpoint_interval": 50}
PATIENCE = 60.0
PROGRAM = """
import signal, sys
from pathlib import Path
from mbrl.study.local_engine import LocalEngine
from mbrl.study.sweep import run_sweep
from tests.study.toy_study import Silent, toy_plan
from tests.study.test_local_engine import CHANGES
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
plan, site = toy_plan(Path(sys.argv[1]), Path(sys.argv[2]), **CHANGES)
run_sweep(plan.tasks, site.folder, LocalEngine(site, jobs=2), Silent())
"""


def wait_for(condition: Callable[[], Any]) -> Any:
    """What `condition` returns once it is true."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)
    return found


def has_checkpoints(site: Site, count: int) -> bool:
    return len(list(site.runs.glob("toy/train_policy*/checkpoints/step-*.pt"))) >= count


def policies(site: Site) -> dict[str, bytes]:
    """Content of every policy by the name of its run."""
    return {path.parent.name: path.read_bytes() for path in site.runs.glob("toy/*/policy.safetensors")}


def worker_of(site: Site, task: str) -> int:
    return int(site.folder.lock_path(task).read_text())


def sweep(plan: StudyPlan, site: Site) -> SweepState:
    engine = LocalEngine(site, jobs=2)
    try:
        return run_sweep(plan.tasks, site.folder, engine, Silent())
    finally:
        engine.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The folder of the dataset, and the policies of a sweep that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    plan, site = toy_plan(folder, folder / "runs", **CHANGES)
    sweep(plan, site)
    assert len(policies(site)) == 2
    return folder, policies(site)


def test_a_killed_worker_fails_its_run_only_and_the_run_continues_to_the_same_bits(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    victim = "train.toy.bc.s1"

    def kill_after_a_checkpoint() -> None:
        wait_for(lambda: any(site.runs.glob("toy/train_policy-bc-s1*/checkpoints/step-*.pt")))
        os.kill(worker_of(site, victim), signal.SIGKILL)

    plan, site = toy_plan(whole[0], tmp_path, **CHANGES)
    killer = threading.Thread(target=kill_after_a_checkpoint)
    killer.start()
    state = sweep(plan, site)
    killer.join()
    assert state.counts() == {"done": 1, "failed": 1}
    assert "SIGKILL" in (state.outcomes[victim].cause or "")
    assert sweep(plan, site).counts() == {"done": 2}
    assert policies(site) == whole[1]
    resumed = [
        path for path in site.runs.glob("toy/*s1*/manifest.json") if '"resumes": 1' in path.read_text()
    ]
    assert len(resumed) == 1


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_parent_and_a_new_sweep_continues_to_the_same_bits(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path, death: signal.Signals
) -> None:
    plan, site = toy_plan(whole[0], tmp_path, **CHANGES)
    command = [sys.executable, "-c", PROGRAM, str(whole[0]), str(tmp_path)]
    parent = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    wait_for(lambda: has_checkpoints(site, 2))
    running = [task for task, state in site.folder.task_states().items() if state == "running"]
    workers = [worker_of(site, task) for task in running]
    assert workers
    parent.send_signal(death)
    parent.wait(PATIENCE)
    wait_for(lambda: "running" not in site.folder.task_states().values())
    wait_for(lambda: not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers))
    assert set(site.folder.task_states().values()) <= {"missing", "done"}
    assert "missing" in site.folder.task_states().values()
    assert sweep(plan, site).counts() == {"done": 2}
    assert policies(site) == whole[1]


def test_workers_compute_what_this_process_computes(
    whole: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    changes = {**CHANGES, "algorithms": {"bc": {**LONG, "updates": 20}}}
    here = toy_plan(whole[0], tmp_path / "here", **changes)
    there = toy_plan(whole[0], tmp_path / "there", **changes)
    sweep_inline(*here)
    sweep(*there)
    assert len(policies(here[1])) == 2
    assert policies(here[1]) == policies(there[1])
