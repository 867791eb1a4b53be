"""Work in tasks: what one is, where it works, and how it is done, resumed and recorded."""

import abc
import dataclasses
import functools
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from mbrl.core.errors import MbrlError
from mbrl.core.progress import Progress
from mbrl.run.files import BusyError, locked
from mbrl.study.folder import FileProgress, Outcome, StudyFolder

T = TypeVar("T")

_BUSY_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Where tasks work; plain values that reach any process.

    Attributes:
        folder: in which they record how they ended.
        runs: root of the run store.
        minari_root: folder of Minari's local datasets; None for its default.
    """

    folder: StudyFolder
    runs: Path
    minari_root: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Task(abc.ABC):
    """One step of a larger work; everything that a worker has to know about it.

    Attributes:
        id: unique in the work; names its files.
        kind: which step.
        dataset: label.
        fingerprint: of everything that the result depends on.
        needs: ids of the tasks that must be done before.
        algorithm: label, or None if several share the task.
        seed: of the run, or None likewise.
    """

    id: str
    kind: str
    dataset: str
    fingerprint: str
    needs: tuple[str, ...] = ()
    algorithm: str | None = None
    seed: int | None = None

    @property
    def title(self) -> str:
        """What a person calls it: `train mopo on mixed, seed 3`."""
        what = f"{self.kind} {self.algorithm}" if self.algorithm else self.kind
        return f"{what} on {self.dataset}" + ("" if self.seed is None else f", seed {self.seed}")

    @abc.abstractmethod
    def perform(self, site: Site, progress: Progress) -> Path:
        """Makes the result, or finds it; returns where it is."""

    def has_result(self, path: Path) -> bool:
        """Whether the result that `perform` returned is still there."""
        return path.exists()


def is_current(task: Task, outcome: Outcome | None) -> bool:
    """Whether a task is done with the same config and data, and its result is still there."""
    if outcome is None or outcome.status != "done" or outcome.fingerprint != task.fingerprint:
        return False
    return task.has_result(Path(outcome.path or ""))


def execute(task: Task, site: Site) -> Outcome:
    """Does a task in this process, continuing from its checkpoints; never raises what the task raised.

    If another process works on the same result, waits for it.

    Returns:
        How it ended; it is on disk as well.
    """
    progress = FileProgress(site.folder.progress_path(task.id))
    try:
        return _wait_for_others(functools.partial(_execute_locked, task, site, progress), progress)
    finally:
        progress.remove()


def _wait_for_others(work: Callable[[], T], progress: Progress) -> T:
    while True:
        try:
            return work()
        except BusyError as error:
            progress.message(str(error))
            time.sleep(_BUSY_SECONDS)


def _execute_locked(task: Task, site: Site, progress: Progress) -> Outcome:
    with locked(site.folder.lock_path(task.id)):
        found = site.folder.outcome(task.id)
        if found is not None and is_current(task, found):
            return found
        begin, trace = time.perf_counter(), None
        outcome = Outcome(task.id, "done", task.fingerprint)
        try:
            outcome = dataclasses.replace(outcome, path=str(task.perform(site, progress)))
        except BusyError:
            raise
        except Exception as error:  # noqa: BLE001 - a failed run must not take the others with it
            is_known = isinstance(error, (MbrlError, OSError))
            cause = str(error) if is_known else f"{type(error).__name__}: {error}"
            outcome, trace = (
                dataclasses.replace(outcome, status="failed", cause=cause),
                traceback.format_exc(),
            )
        seconds = round(time.perf_counter() - begin, 3)
        return site.folder.record(dataclasses.replace(outcome, seconds=seconds), trace)
