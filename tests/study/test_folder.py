"""What a comparison keeps beside its runs."""

from pathlib import Path

import pytest

from mbrl.run.files import BusyError, is_locked, locked
from mbrl.study.folder import FileProgress, Outcome, StudyFolder, TaskProgress


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    runs = [{"dataset": "d", "algorithm": a, "seed": 0, "tasks": ["fit", a]} for a in ("x", "y")]
    folder.begin(config="", facts={"name": "n", "tasks": {"fit": "1", "x": "2", "y": "3"}, "runs": runs})
    return folder


def test_a_task_is_missing_running_failed_or_done(folder: StudyFolder) -> None:
    assert folder.task_states() == {"fit": "missing", "x": "missing", "y": "missing"}
    with locked(folder.lock_path("fit")):
        assert folder.task_states()["fit"] == "running"
        assert [run["status"] for run in folder.run_states()] == ["running", "running"]
    folder.record(Outcome("fit", "done", "1", path="p"))
    folder.record(Outcome("x", "failed", "2", cause="why"), trace="lines")
    assert folder.task_states() == {"fit": "done", "x": "failed", "y": "missing"}
    assert [run["status"] for run in folder.run_states()] == ["failed", "missing"]
    assert folder.cause("x") == "why"


def test_an_outcome_of_another_config_does_not_count(folder: StudyFolder) -> None:
    folder.record(Outcome("x", "done", "another fingerprint", path="p"))
    assert folder.task_states()["x"] == "missing"


def test_a_traceback_is_kept_until_the_task_succeeds(folder: StudyFolder) -> None:
    outcome = folder.record(Outcome("x", "failed", "2", cause="why"), trace="line 3")
    assert outcome.trace is not None
    assert Path(outcome.trace).read_text() == "why\n\nline 3"
    assert folder.outcome("x") == outcome
    folder.record(Outcome("x", "done", "2", path="p"))
    assert not Path(outcome.trace).exists()


def test_progress_is_told_through_a_file(folder: StudyFolder) -> None:
    assert folder.progress("x") is None
    progress = FileProgress(folder.progress_path("x"))
    progress.start("train", 100)
    progress.advance(30)  # too soon after the start to be written
    assert folder.progress("x") == TaskProgress("train", 0, 100)
    progress.message("careful")
    assert folder.progress("x") == TaskProgress("train", 30, 100, "careful")
    progress.remove()
    assert folder.progress("x") is None
    assert not list(folder.path.glob("tasks/*.tmp"))


def test_looking_at_a_lock_neither_takes_nor_breaks_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
        with pytest.raises(BusyError, match="works in"), locked(path):
            pass
    assert not is_locked(path)
    with locked(path):
        pass
