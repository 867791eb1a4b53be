"""What a comparison keeps on disk beside its runs: its tasks, how they ended, and how far they are."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, model_validator

from mbrl.core.errors import FileError
from mbrl.run.files import check_values, is_locked, read_json, read_record, write_json, write_text

STUDY_FILE: Final = "study.json"
_PROGRESS_SECONDS: Final = 0.5
_REMEDY: Final = "run mbrl compare with the config of the comparison again, which writes it anew."

TaskStatus = Literal["done", "running", "failed", "missing"]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended.

    Attributes:
        task: its id.
        status: whether it produced its result.
        fingerprint: of everything that the task depends on; another one makes the outcome void.
        path: what it produced, a run folder or a dataset; None if it failed.
        cause: why it failed, one paragraph.
        trace: file with the traceback, or None.
        seconds: wall time of the attempt that ended; 0 if the result was there already.
    """

    task: str
    status: Literal["done", "failed"]
    fingerprint: str
    path: str | None = None
    cause: str | None = None
    trace: str | None = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class TaskProgress:
    """How far a running task is.

    Attributes:
        label: of the current piece of work.
        done: steps of it.
        total: steps in it.
        note: the last message, or "".
    """

    label: str
    done: int
    total: int
    note: str = ""


class _StudyRun(BaseModel):
    """One training of a comparison with its judgement."""

    dataset: str
    algorithm: str
    seed: int
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]


class _StudyFacts(BaseModel):
    """What a comparison writes before it begins."""

    name: str
    tasks: dict[str, str]
    runs: tuple[_StudyRun, ...]

    @model_validator(mode="after")
    def _tasks_are_known(self) -> "_StudyFacts":
        unknown = {task for run in self.runs for task in run.tasks} - self.tasks.keys()
        if unknown:
            raise ValueError(f"a run has the task {min(unknown)[:60]!r}, which is not listed")
        return self


@dataclasses.dataclass(frozen=True, slots=True)
class StudyFolder:
    """The folder of one comparison.

    Attributes:
        path: made by `begin`.
    """

    path: Path

    def begin(self, *, config: str, facts: Mapping[str, Any]) -> None:
        """Writes the config and which tasks there are, before any of them runs."""
        (self.path / "tasks").mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.yaml", config)
        write_json(self.path / STUDY_FILE, facts)

    @property
    def is_study(self) -> bool:
        """Whether a comparison was begun here."""
        return (self.path / STUDY_FILE).is_file()

    def facts(self) -> dict[str, Any]:
        """What `begin` wrote.

        Raises:
            FileError: the file is damaged.
        """
        path = self.path / STUDY_FILE
        values = read_json(path, remedy=_REMEDY)
        check_values(_StudyFacts, values, file=path, remedy=_REMEDY)
        return values

    def lock_path(self, task: str) -> Path:
        """The file that is locked while a task runs."""
        return self.path / "tasks" / f"{task}.lock"

    def progress_path(self, task: str) -> Path:
        """The file in which a running task tells how far it is."""
        return self.path / "tasks" / f"{task}.progress"

    def trace_path(self, task: str) -> Path:
        """The file for the traceback of a failed task."""
        return self.path / "failures" / f"{task}.txt"

    def outcome(self, task: str) -> Outcome | None:
        """How a task ended; None if it has not, or if nobody can tell: it is then done again."""
        try:
            return read_record(self._outcome_path(task), Outcome)
        except FileError:
            return None

    def record(self, outcome: Outcome, trace: str | None = None) -> Outcome:
        """Writes how a task ended, and the text of its traceback; the result names the file of that."""
        path = self.trace_path(outcome.task)
        if trace is not None:
            path.parent.mkdir(exist_ok=True)
            write_text(path, f"{outcome.cause}\n\n{trace}")
            outcome = dataclasses.replace(outcome, trace=str(path))
        elif outcome.status == "done":
            path.unlink(missing_ok=True)
        write_json(self._outcome_path(outcome.task), dataclasses.asdict(outcome))
        return outcome

    def progress(self, task: str) -> TaskProgress | None:
        """How far a running task is, or None if it has not told yet."""
        try:
            return read_record(self.progress_path(task), TaskProgress)
        except FileError:
            return None

    def task_states(self) -> dict[str, TaskStatus]:
        """State of every task by id; outcomes of another config do not count."""
        tasks: dict[str, str] = self.facts()["tasks"]
        return {task: self._task_state(task, fingerprint) for task, fingerprint in tasks.items()}

    def run_states(self) -> list[dict[str, Any]]:
        """Every run with `dataset`, `algorithm`, `seed`, the ids of its `tasks`, and its `status`."""
        states = self.task_states()
        runs: list[dict[str, Any]] = self.facts()["runs"]
        return [{**run, "status": _run_state([states[task] for task in run["tasks"]])} for run in runs]

    def cause(self, task: str) -> str:
        """Why a task failed, or ""."""
        outcome = self.outcome(task)
        return "" if outcome is None else outcome.cause or ""

    def _task_state(self, task: str, fingerprint: str) -> TaskStatus:
        if is_locked(self.lock_path(task)):
            return "running"
        outcome = self.outcome(task)
        return "missing" if outcome is None or outcome.fingerprint != fingerprint else outcome.status

    def _outcome_path(self, task: str) -> Path:
        return self.path / "tasks" / f"{task}.json"


class FileProgress:
    """Tells through a small file how far a task is; any process on the same file system may look.

    Args:
        path: of the file; replaced at once, so a reader never sees half of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = TaskProgress("starts", 0, 0)
        self._last = -float("inf")

    def start(self, label: str, total: int) -> None:
        """A piece of work begins."""
        self._tell(dataclasses.replace(self._state, label=label, done=0, total=total))

    def advance(self, done: int, **figures: float) -> None:
        """Written if the last word is old enough."""
        del figures
        self._state = dataclasses.replace(self._state, done=done)
        if time.monotonic() - self._last >= _PROGRESS_SECONDS:
            self._tell(self._state)

    def finish(self) -> None:
        """Nothing: the next piece or the outcome follows."""

    def message(self, text: str) -> None:
        """Shown beside the task."""
        self._tell(dataclasses.replace(self._state, note=text))

    def remove(self) -> None:
        """Takes the file away when the task is over."""
        self._path.unlink(missing_ok=True)

    def _tell(self, state: TaskProgress) -> None:
        self._state, self._last = state, time.monotonic()
        partial = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a full disk must not stop the run for want of a progress bar
            partial.write_text(json.dumps(dataclasses.asdict(state)), encoding="utf-8")
            partial.replace(self._path)


def _run_state(chain: Sequence[TaskStatus]) -> TaskStatus:
    """State of a run, from the states of its tasks in order; the last task completes it."""
    if chain[-1] == "done":
        return "done"
    if "running" in chain:
        return "running"
    return "failed" if "failed" in chain else "missing"
