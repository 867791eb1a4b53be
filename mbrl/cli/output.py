"""What the command prints: tables or JSON to stdout, progress and errors to stderr."""

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

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

if TYPE_CHECKING:
    from mbrl.report.kit.table import Table

WIDTH: Final = 100
_LINE_SECONDS: Final = 10.0
_FIGURES: Final = (
    "holdout_error", "policy/loss", "critic/loss", "critic/value", "online/episode_return",
)  # fmt: skip


def stdout() -> Console:
    """Console of results, never wider than 100 columns."""
    console = Console(highlight=False)
    return Console(highlight=False, width=min(WIDTH, console.width) if console.is_terminal else WIDTH)


def stderr() -> Console:
    """Console of everything else."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def emit(
    result: Mapping[str, Any],
    tables: "Sequence[Table]",
    *,
    is_json: bool,
    path: Path | None = None,
    messages: Sequence[str] = (),
) -> None:
    """Prints a command's result.

    Args:
        result: for machines; stdout is exactly this object with `is_json`.
        tables: for people.
        is_json: which of the two.
        path: what the command wrote; the last line for people, the key `path` for machines.
        messages: sentences below the tables, for people.
    """
    from mbrl.report.kit.table import to_rich

    if is_json:
        whole = {**result, **({} if path is None else {"path": str(path)})}
        sys.stdout.write(json.dumps(jsonable(whole)) + "\n")
        return
    console = stdout()
    for table in tables:
        console.print(to_rich(table))
    for message in messages:
        console.print(message, markup=False)
    if path is not None:
        console.print(f"Wrote {path}", soft_wrap=True)


def jsonable(value: Any) -> Any:
    """Plain values that strict JSON can hold: NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in cast("list[Any]", value)]
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


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


def make_progress(*, is_json: bool) -> BarProgress | LineProgress:
    """Bars at a terminal, lines elsewhere and with `--json`."""
    return BarProgress() if sys.stderr.isatty() and not is_json else LineProgress()


def _figures(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {values[name]:.3g}" for name in _FIGURES if name in values)
