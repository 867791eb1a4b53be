"""How a comparison shows that it goes on: a live table at a terminal, plain lines elsewhere."""

import time
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from mbrl.api.progress import Listener, stderr
from mbrl.study.sweep import SweepState
from mbrl.study.tasks import Task

_BAR_WIDTH: Final = 16
_LINE_SECONDS: Final = 30.0


class LiveBoard:
    """One row for each running task, totals and the time that is left; failures stay above it."""

    def __init__(self) -> None:
        self._live = Live(console=stderr(), transient=True, auto_refresh=False)

    def __enter__(self) -> "LiveBoard":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, state: SweepState, ended: Sequence[Task]) -> None:
        """Draws the state."""
        for task in ended:
            if state.status(task) == "failed":
                self._live.console.print(describe_end(state, task), markup=False)
        self._live.update(draw(state), refresh=True)


class LineBoard:
    """A line for each task that ended, and totals now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __enter__(self) -> "LineBoard":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, state: SweepState, ended: Sequence[Task]) -> None:
        """Prints what is new."""
        console = stderr()
        for task in ended:
            console.print(describe_end(state, task), markup=False)
        now = time.monotonic()
        if ended or now - self._last >= _LINE_SECONDS:
            self._last = now
            console.print(describe_totals(state), markup=False)


class SilentBoard:
    """Shows nothing."""

    def __enter__(self) -> "SilentBoard":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def show(self, state: SweepState, ended: Sequence[Task]) -> None:
        """Nothing."""


def make_board(progress: Listener = None, *, is_live: bool = True) -> LiveBoard | LineBoard | SilentBoard:
    """Live in a notebook and at a terminal, lines elsewhere.

    Args:
        progress: False for none of both.
        is_live: False for lines at a terminal, too.
    """
    if progress is False:
        return SilentBoard()
    is_shown = stderr().is_terminal or stderr().is_jupyter
    return LiveBoard() if is_shown and is_live else LineBoard()


def draw(state: SweepState) -> Group:
    """The live table."""
    table = RichTable(box=box.SIMPLE_HEAD)
    for name in ("running", "now", "", "steps", "elapsed"):
        table.add_column(name, justify="right" if name in {"steps", "elapsed"} else "left", overflow="fold")
    now = time.monotonic()
    for task in state.tasks:
        if task.id not in state.running:
            continue
        progress = state.folder.progress(task.id)
        label, done, total = (progress.label, progress.done, progress.total) if progress else ("waits", 0, 0)
        bar = ProgressBar(total=total or 1, completed=done, width=_BAR_WIDTH)
        steps = f"{done}/{total}" if total else ""
        table.add_row(Text(task.title), label, bar, steps, clock(now - state.running[task.id]))
        if progress and progress.note:
            table.add_row(Text(f"  {progress.note}", style="dim"))
    return Group(table, Text(describe_totals(state)))


def describe_totals(state: SweepState) -> str:
    """Counts of tasks by state, and the time that is left."""
    counts = state.counts()
    parts = [f"{counts['done']} of {len(state.tasks)} tasks done"]
    parts += [f"{counts[key]} {key}" for key in ("running", "failed") if counts.get(key)]
    left = state.seconds_left()
    parts.append("time left unknown yet" if left is None else f"about {clock(left)} left")
    return ", ".join(parts)


def describe_end(state: SweepState, task: Task) -> str:
    """How a task ended, in a line."""
    outcome = state.outcomes[task.id]
    if outcome.status == "done":
        return f"done: {task.title} ({clock(outcome.seconds)})"
    trace = "" if outcome.trace is None else f" Traceback: {outcome.trace}"
    return f"FAILED: {task.title}: {outcome.cause}{trace}"


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
