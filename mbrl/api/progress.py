"""How long work shows that it goes on: bars and tables in a notebook and at a terminal, lines elsewhere."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from mbrl.core.progress import Progress, SilentProgress
from mbrl.study.sweep import SweepState
from mbrl.study.tasks import Task

Listener: TypeAlias = bool | Progress | None
"""Whom long work tells, see `choose_progress`."""

_LINE_SECONDS: Final = 10.0
_BAR_WIDTH: Final = 16
_BOARD_SECONDS: Final = 30.0
_FIGURES: Final = (
    "holdout_error", "policy/loss", "critic/loss", "critic/value", "online/episode_return",
)  # fmt: skip
"""Which of the figures that work reports stand beside the bar."""


def stderr() -> Console:
    """Console of everything that is no result; in a notebook, the cell's output."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


class BarProgress:
    """A bar with the time that is left, for people at a terminal."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def start(self, label: str, total: int) -> None:
        """Opens a bar."""
        self.finish()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=stderr(),
            transient=True,
        )
        self._task = self._bar.add_task(label, total=total, figures="")
        self._bar.start()

    def advance(self, done: int, **figures: float) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            if figures:
                self._bar.update(self._task, figures=_figures(figures))

    def finish(self) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def message(self, text: str) -> None:
        """Prints above the bar."""
        (self._bar.console if self._bar is not None else stderr()).print(text)


class LineProgress:
    """Plain lines now and then, for log files; nothing about work that is over sooner.

    Args:
        seconds: least time between two lines.
    """

    def __init__(self, seconds: float = _LINE_SECONDS) -> None:
        self._seconds = seconds
        self._label, self._total = "", 0
        self._begin, self._last, self._first = 0.0, 0.0, -1
        self._newest = ""

    def start(self, label: str, total: int) -> None:
        """Notes what begins."""
        self._label, self._total = label, total
        self._begin = self._last = time.monotonic()
        self._first, self._newest = -1, ""

    def advance(self, done: int, **figures: float) -> None:
        """Prints a line if the last one is old enough."""
        if self._first < 0:
            self._first = done
        self._newest = _figures(figures) or self._newest
        now = time.monotonic()
        if now - self._last < self._seconds:
            return
        self._last = now
        speed = (done - self._first) / max(now - self._begin, 1e-9)
        left = (self._total - done) / speed if speed > 0 else math.inf
        eta = f"{left / 60:.1f} min" if math.isfinite(left) else "unknown"
        where = f"{self._label} {done}/{self._total}, {speed:.1f}/s, at most {eta} left"
        stderr().print(f"{where}; {self._newest}" if self._newest else where)

    def finish(self) -> None:
        """Nothing to close."""

    def message(self, text: str) -> None:
        """Prints a line."""
        stderr().print(text)


def choose_progress(progress: Listener) -> Progress:
    """Whom long work tells.

    Args:
        progress: a listener; False for none; None or True for bars in a notebook and at a terminal, lines
            elsewhere.
    """
    if isinstance(progress, Progress):
        return progress
    if progress is False:
        return SilentProgress()
    return BarProgress() if stderr().is_terminal or stderr().is_jupyter else LineProgress()


def _figures(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {values[name]:.3g}" for name in _FIGURES if name in values)


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
        if ended or now - self._last >= _BOARD_SECONDS:
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
