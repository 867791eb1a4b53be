"""How long work shows that it goes on: bars in a notebook and at a terminal, lines elsewhere, or nothing."""

import math
import time
from collections.abc import Mapping
from typing import Final, TypeAlias

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from mbrl.core.progress import Progress, SilentProgress

Listener: TypeAlias = bool | Progress | None
"""Whom long work tells, see `choose_progress`."""

_LINE_SECONDS: Final = 10.0
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
