"""Columns that belong together: a position and its velocity, a command and what was measured of it."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LIKENESS: Final = 0.9
"""Correlation from which two columns count as the same quantity."""

MAX_LAG: Final = 50
"""Most rows by which a response may follow its command."""

_MOST_ROWS: Final = 20_000
_MOST_COLUMNS: Final = 40


def find_velocities(
    columns: Mapping[str, Floats], time: Floats, periods: Mapping[str, float]
) -> dict[str, str]:
    """Position by velocity: pairs of which the second changes as the first says.

    Args:
        columns: of numbers, by name.
        time: seconds.
        periods: turn of the columns that wrap.
    """
    names = list(columns)[:_MOST_COLUMNS]
    rows = _rows(time)
    ahead = 5  # rows over which a change is taken, so that ticks do not drown it
    found: dict[str, tuple[float, str]] = {}
    for position in names:
        values = columns[position][rows]
        if position in periods:
            values = np.unwrap(values, period=periods[position])
        seconds = time[rows][ahead:] - time[rows][:-ahead]
        usable = seconds > 0
        change = (values[ahead:] - values[:-ahead])[usable] / seconds[usable]
        for velocity in names:
            if velocity == position:
                continue
            mean = _moving_mean(columns[velocity][rows], ahead)[: len(seconds)][usable]
            likeness = _correlation(change, mean)
            if likeness > max(LIKENESS, found.get(velocity, (0.0, ""))[0]):
                found[velocity] = (likeness, position)
    return {velocity: position for velocity, (_, position) in found.items()}


def find_response(command: Floats, response: Floats) -> tuple[int, float]:
    """Rows by which `response` follows `command` where the two are most alike, and how alike they are then.

    A negative number says that it goes before.
    """
    rows = _rows(command)
    first, second = command[rows], response[rows]
    best = (0, _correlation(first, second))
    for lag in range(1, min(MAX_LAG, len(first) // 4)):
        for shift, likeness in (
            (lag, _correlation(first[:-lag], second[lag:])),
            (-lag, _correlation(first[lag:], second[:-lag])),
        ):
            if likeness > best[1] + 1e-6:
                best = (shift, likeness)
    return best


def find_commands(columns: Mapping[str, Floats], candidates: Sequence[str]) -> dict[str, tuple[str, int]]:
    """By measured column: the command that it follows, and by how many rows.

    Args:
        columns: by name.
        candidates: those that may be commands or measurements of them.
    """
    found: dict[str, tuple[str, int]] = {}
    for measured in candidates[:_MOST_COLUMNS]:
        best = LIKENESS
        for command in candidates[:_MOST_COLUMNS]:
            if command == measured:
                continue
            lag, likeness = find_response(columns[command], columns[measured])
            if lag > 0 and likeness > best:
                best = likeness
                found[measured] = (command, lag)
    return found


def _rows(values: Floats) -> slice:
    return slice(0, min(len(values), _MOST_ROWS))


def _moving_mean(values: Floats, ahead: int) -> Floats:
    sums = np.cumsum(np.concatenate([[0.0], values]))
    return (sums[ahead:] - sums[:-ahead])[: len(values) - ahead] / ahead


def _correlation(first: Floats, second: Floats) -> float:
    if len(first) < 10:
        return 0.0
    known = np.isfinite(first) & np.isfinite(second)
    a, b = first[known] - first[known].mean(), second[known] - second[known].mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0
