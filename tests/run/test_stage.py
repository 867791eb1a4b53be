"""The ritual of stages: found or made, under a lock, marked last, made again if a result is lost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mbrl.run.files import BusyError, locked
from mbrl.run.stage import Stage, StageWork, Workspace, perform
from mbrl.run.store import RunStore, StageKey

KEY = StageKey("evaluate", "toy", "bc", 3, {"policy": "abc"})


class Work:
    """Writes one result, and remembers how often it was asked."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls = 0
        self.fails = fails

    def __call__(self, work: StageWork) -> Mapping[str, Any]:
        self.calls += 1
        assert work.run.manifest()["hash"] == KEY.digest
        assert not work.run.is_done
        with pytest.raises(BusyError), locked(work.path / ".lock"):
            pass
        if self.fails:
            raise ValueError("broken off")
        (work.path / "result.bin").write_bytes(b"x")
        return {"answer": 42}


def stage(work: Work) -> Stage:
    return Stage(key=KEY, config={"episodes": 3}, facts={"threads": 1}, work=work, results=("result.bin",))


def test_what_is_done_is_found(tmp_path: Path) -> None:
    work, workspace = Work(), Workspace(RunStore(tmp_path))
    run = perform(stage(work), workspace)
    assert perform(stage(work), workspace) == run
    assert work.calls == 1
    assert run.summary() == {"stage": "evaluate", "answer": 42}
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"episodes": 3}
    assert run.manifest()["threads"] == 1


def test_a_stage_that_broke_off_is_not_done_and_goes_on(tmp_path: Path) -> None:
    workspace = Workspace(RunStore(tmp_path))
    with pytest.raises(ValueError, match="broken off"):
        perform(stage(Work(fails=True)), workspace)
    assert not workspace.store.folder(KEY).is_done
    run = perform(stage(Work()), workspace)
    assert run.is_done
    assert run.manifest()["resumes"] == 1


def test_a_lost_result_is_made_again(tmp_path: Path) -> None:
    work, workspace = Work(), Workspace(RunStore(tmp_path))
    run = perform(stage(work), workspace)
    (run.path / "result.bin").unlink()
    assert perform(stage(work), workspace).is_done
    assert work.calls == 2
    assert (run.path / "result.bin").is_file()


def test_anew_makes_it_again(tmp_path: Path) -> None:
    work, workspace = Work(), Workspace(RunStore(tmp_path))
    perform(stage(work), workspace)
    perform(stage(work), workspace, anew=True)
    assert work.calls == 2


def test_a_finished_stage_is_only_read(tmp_path: Path) -> None:
    work, workspace = Work(), Workspace(RunStore(tmp_path))
    run = perform(stage(work), workspace)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with locked(run.path / ".lock"):  # held by somebody else: a reader does not need it
        assert perform(stage(work), workspace).is_done
    assert [path for path, _ in before] == sorted(tmp_path.rglob("*"))
    assert before[0][1] == before[0][0].stat().st_mtime_ns


def test_seconds_of_attempts_add_up_and_other_stages_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0, 103.0])  # begin, after another stage's work, end
    monkeypatch.setattr("mbrl.run.stage.time.perf_counter", lambda: next(clock))

    def work(work: StageWork) -> Mapping[str, Any]:
        work.restart_clock()
        return {}

    run = perform(Stage(key=KEY, config="", facts={}, work=work), Workspace(RunStore(tmp_path)))
    assert run.manifest()["wall_seconds"] == 3.0
