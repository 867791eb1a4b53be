"""What an import did, in figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mbrl.data.dataset import Dataset
from mbrl.data.importing.runs import Piece
from mbrl.data.importing.schema import ImportSchema


@dataclasses.dataclass(frozen=True, slots=True)
class RunClock:
    """The clock of a piece of log.

    Attributes:
        name: of the run.
        interval: usual seconds between rows of its slowest column.
        jitter: 95 % of the intervals lie within this of the usual one, seconds.
        longest: longest interval, seconds.
    """

    name: str
    interval: float
    jitter: float
    longest: float


@dataclasses.dataclass(frozen=True, slots=True)
class ImportReport:
    """What was read, left out and made.

    Attributes:
        schema: resolved: every default written out.
        files: number of files.
        rows: that they hold.
        episodes: that were made.
        terminated: how many of them terminate.
        transitions: their steps.
        rate: steps per second of the dataset.
        clocks: of the runs, as they were logged.
        dropped: what was left out or cut, by reason.
    """

    schema: ImportSchema
    files: int
    rows: int
    episodes: int
    terminated: int
    transitions: int
    rate: float
    clocks: tuple[RunClock, ...]
    dropped: Mapping[str, int]

    @classmethod
    def of(
        cls,
        schema: ImportSchema,
        files: Sequence[Path],
        rows: int,
        dataset: Dataset,
        clocks: Sequence[RunClock],
    ) -> "ImportReport":
        """The report on a dataset that was made."""
        step = dataset.info.time_step
        return cls(
            schema=schema,
            files=len(files),
            rows=rows,
            episodes=len(dataset),
            terminated=sum(episode.terminated for episode in dataset.episodes),
            transitions=dataset.num_transitions,
            rate=0.0 if step is None else 1.0 / step,
            clocks=tuple(clocks),
            dropped=dict(dataset.dropped),
        )

    @property
    def interval(self) -> tuple[float, float]:
        """Least and largest usual interval of the runs, seconds."""
        intervals = [clock.interval for clock in self.clocks]
        return min(intervals), max(intervals)


def run_clock(name: str, piece: Piece) -> RunClock:
    """Measures the intervals between the rows of a piece."""
    slowest = max(piece.signals.values(), key=lambda signal: signal.interval)
    steps = np.diff(slowest.time)
    if not len(steps):
        return RunClock(name, 0.0, 0.0, 0.0)
    usual = float(np.median(steps))
    return RunClock(name, usual, float(np.quantile(np.abs(steps - usual), 0.95)), float(steps.max()))
