"""Runs the tasks of a comparison side by side: whatever is ready, wherever there is room."""

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Final, Protocol, runtime_checkable

from mbrl.study.folder import Outcome, StudyFolder, TaskStatus
from mbrl.study.tasks import Task, is_current

_LOOK_SECONDS: Final = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A task that an engine is done with.

    Attributes:
        task: which one.
        death: why its worker is gone; None if the worker wrote the outcome itself.
    """

    task: Task
    death: str | None = None


@runtime_checkable
class Engine(Protocol):
    """Where tasks run."""

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        ...

    def submit(self, task: Task) -> None:
        """Starts a task; at most `slots` are under way."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """Tasks that ended, waiting for the first one up to `seconds`."""
        ...

    def close(self) -> None:
        """Stops everything at once; checkpoints stay."""
        ...


@dataclasses.dataclass(slots=True)
class SweepState:
    """Where a sweep stands.

    Attributes:
        folder: of the comparison.
        tasks: all of them, in order.
        slots: how many run at once.
        outcomes: of the tasks that ended, by id.
        found: ids of those that were done before.
        running: when each task under way was started, `time.monotonic` seconds by id.
    """

    folder: StudyFolder
    tasks: Sequence[Task]
    slots: int
    outcomes: dict[str, Outcome] = dataclasses.field(default_factory=dict[str, Outcome])
    found: frozenset[str] = frozenset()
    running: dict[str, float] = dataclasses.field(default_factory=dict[str, float])

    def status(self, task: Task) -> TaskStatus:
        """State of one task."""
        if task.id in self.running:
            return "running"
        return self.outcomes[task.id].status if task.id in self.outcomes else "missing"

    def counts(self) -> Mapping[TaskStatus, int]:
        """Tasks by state."""
        return Counter(self.status(task) for task in self.tasks)

    def ready(self) -> list[Task]:
        """Tasks that wait for nothing but a slot."""
        return [
            task
            for task in self.tasks
            if self.status(task) == "missing"
            and all(need in self.outcomes and self.outcomes[need].status == "done" for need in task.needs)
        ]

    def seconds_left(self) -> float | None:
        """Expected wall time of what is missing, from the mean time of like tasks that ended in this sweep.

        Like tasks are those of the same kind and algorithm, else of the same kind; None while there is none.
        """
        ended = [task for task in self.tasks if task.id in self.outcomes and task.id not in self.found]
        left = 0.0
        for task in self.tasks:
            if task.id in self.outcomes:
                continue
            like = [t for t in ended if (t.kind, t.algorithm) == (task.kind, task.algorithm)]
            like = like or [t for t in ended if t.kind == task.kind]
            if not like:
                return None
            expected = fmean(self.outcomes[t.id].seconds for t in like)
            begun = self.running.get(task.id)
            left += expected if begun is None else max(expected - (time.monotonic() - begun), 0.0)
        return left / max(self.slots, 1)


@runtime_checkable
class SweepListener(Protocol):
    """Is shown the state whenever it changed, and every half second."""

    def show(self, state: SweepState, ended: Sequence[Task]) -> None:
        """`ended` are the tasks that ended since the last call."""
        ...


def run_sweep(
    tasks: Sequence[Task], folder: StudyFolder, engine: Engine, listener: SweepListener
) -> SweepState:
    """Runs every task that is not done yet; a failed one fails those that need it and no others.

    Args:
        tasks: every one behind those that it needs.
        folder: of the comparison; outcomes of earlier sweeps are taken from it, failures are tried again.
        engine: where they run; the caller closes it.
        listener: is shown what happens.
    """
    outcomes = {task.id: folder.outcome(task.id) for task in tasks}
    done = {task.id: found for task in tasks if (found := outcomes[task.id]) and is_current(task, found)}
    state = SweepState(folder, tasks, engine.slots, dict(done), frozenset(done))
    listener.show(state, ())
    while True:
        state.slots = engine.slots
        for task in state.ready()[: max(state.slots - len(state.running), 0)]:
            engine.submit(task)
            state.running[task.id] = time.monotonic()
        if not state.running:
            return state
        ended = [_settle(item, state) for item in engine.wait(_LOOK_SECONDS)]
        listener.show(state, [*ended, *_fail_dependents(state)])


def _settle(ended: Ended, state: SweepState) -> Task:
    task = ended.task
    seconds = time.monotonic() - state.running.pop(task.id)
    outcome = state.folder.outcome(task.id)
    if ended.death is not None or outcome is None:
        cause = ended.death or "Its worker ended without a word."
        outcome = state.folder.record(
            Outcome(task.id, "failed", task.fingerprint, cause=cause, seconds=round(seconds, 3))
        )
    state.outcomes[task.id] = outcome
    return task


def _fail_dependents(state: SweepState) -> list[Task]:
    """Tasks that can no longer run, because one that they need failed; in order, so failures travel on."""
    failed: list[Task] = []
    for task in state.tasks:
        broken = [need for need in task.needs if need in state.outcomes]
        broken = [need for need in broken if state.outcomes[need].status == "failed"]
        if state.status(task) != "missing" or not broken:
            continue
        first = state.outcomes[broken[0]]
        cause = first.cause or ""
        if not cause.startswith("It needs "):
            cause = f"It needs {broken[0]}, which failed: {cause}"
        outcome = Outcome(task.id, "failed", task.fingerprint, cause=cause, trace=first.trace)
        state.outcomes[task.id] = state.folder.record(outcome)
        failed.append(task)
    return failed
