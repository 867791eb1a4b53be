"""Where a piece of log can be cut into stretches without gaps, each an episode."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mbrl.data.importing.channels import Signals, look_back
from mbrl.data.importing.runs import Piece
from mbrl.data.importing.schema import ImportSchema
from mbrl.data.importing.signals import Floats


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """Time that is known without gaps.

    Attributes:
        start: seconds.
        stop: seconds.
        begun: where the episode began that it belongs to.
        is_end: whether the episode ended with it, rather than went on behind a gap or a time limit.
    """

    start: float
    stop: float
    begun: float
    is_end: bool


def find_stretches(piece: Piece, schema: ImportSchema, counts: Counter[str]) -> Iterator[Stretch]:
    """Yields the stretches of a piece in order of time.

    Args:
        piece: of a run.
        schema: where episodes end.
        counts: told of gaps and of the steps that are lost in them.
    """
    signals = piece.signals
    gaps = _merge(_all_gaps(signals, schema))
    counts["gaps in time"] += len(gaps)
    if schema.rate is not None:
        counts["steps lost in gaps"] += int(np.ceil((gaps[:, 1] - gaps[:, 0]) * schema.rate).sum())
    first = max(float(signal.time[0]) for signal in signals.values())
    last = min(float(signal.time[-1]) for signal in signals.values())
    for start, stop in _labelled(piece, first, last):
        edges = [start, *gaps[(gaps[:, 0] >= start) & (gaps[:, 1] <= stop)].reshape(-1).tolist(), stop]
        for index in range(0, len(edges), 2):
            is_end = index + 2 == len(edges)
            yield from _timed(Stretch(edges[index], edges[index + 1], start, is_end), schema)


def step_times(stretch: Stretch, piece: Piece, schema: ImportSchema) -> Floats:
    """`[T + 1]` times of the observations of a stretch; fewer than two where it is too short for a step."""
    start = stretch.start + look_back(schema)
    if schema.rate is None:
        clock = piece.clock
        slack = 1e-9 * max(1.0, abs(start))
        return clock[(clock >= start - slack) & (clock <= stretch.stop + slack)]
    steps = int(np.floor((stretch.stop - start) * schema.rate + 1e-6))
    if steps < 1:
        return np.zeros(0)
    return np.minimum(start + np.arange(steps + 1) / schema.rate, stretch.stop)


def _all_gaps(signals: Signals, schema: ImportSchema) -> NDArray[np.float64]:
    least = 0.0 if schema.rate is None else 1.0 / schema.rate
    clocks = {id(signal.time): signal for signal in signals.values()}  # columns of a file share theirs
    return np.concatenate([signal.gaps(schema.max_gap, least) for signal in clocks.values()])


def _merge(gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overlapping ones joined, `[g, 2]` ascending."""
    merged: list[list[float]] = []
    for begin, end in gaps[np.argsort(gaps[:, 0], kind="stable")].tolist():
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return np.array(merged, dtype=np.float64).reshape(-1, 2)


def _labelled(piece: Piece, first: float, last: float) -> Iterator[tuple[float, float]]:
    """From change to change of the column that tells episodes apart; the whole without one."""
    if piece.labels is None:
        if first < last:
            yield first, last
        return
    changes = np.flatnonzero(piece.labels[1:] != piece.labels[:-1]) + 1
    starts = np.concatenate([[0], changes])
    stops = np.concatenate([changes, [len(piece.clock)]]) - 1
    for start, stop in zip(piece.clock[starts].tolist(), piece.clock[stops].tolist(), strict=True):
        start, stop = max(start, first), min(stop, last)  # noqa: PLW2901 - clipped to what all columns know
        if start < stop:
            yield start, stop


def _timed(stretch: Stretch, schema: ImportSchema) -> Iterator[Stretch]:
    """Cut every so many seconds, if the schema says so."""
    seconds = schema.episodes.seconds
    if seconds is None:
        yield stretch
        return
    # Episodes after the first begin where the one before ends, with the rows before at hand.
    start, back = stretch.start, look_back(schema)
    while stretch.stop - start > back + 1e-9:
        stop = min(start + back + seconds, stretch.stop)
        is_end = stretch.is_end and stop == stretch.stop
        yield Stretch(start, stop, start, is_end)
        start = stop - back
        if stop == stretch.stop:
            return
