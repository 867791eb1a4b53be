"""Signals in steps of an encoder, and the resolution that a difference of two of them leaves."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from mbrl.data.importing.guess.columns import find_tick
from mbrl.data.importing.guess.pairs import find_velocities
from mbrl.data.inspection.finding import Chart, Curve, DataFinding
from mbrl.data.inspection.record import Floats, Record
from mbrl.data.inspection.signs.clocks import usual_intervals

COARSE: Final = 0.5
"""Resolution of a one-step velocity, as a share of its root mean square, from which it is a warning."""

VISIBLE: Final = 0.1
"""From which it is worth a note."""

MOST_WINDOW: Final = 20
"""Rows of the longest window that is advised."""

_MOST_ROWS: Final = 50_000


@dataclasses.dataclass(frozen=True, slots=True)
class Tick:
    """A quantised channel.

    Attributes:
        index: of the channel.
        size: of a step of the encoder.
        resolution: of a difference over one row, per second.
        speed: root mean square of the rate of change.
        window: seconds of a difference that resolves the speed.
        velocity: channel that logs its velocity; None without one.
    """

    index: int
    size: float
    resolution: float
    speed: float
    window: float
    velocity: str | None


def find_ticks(record: Record) -> Iterator[DataFinding]:
    """Quantised observations whose difference over one row is mostly steps of the encoder."""
    intervals = usual_intervals(record)
    longest = int(np.argmax([len(trace.time) for trace in record.traces]))
    trace, interval = record.traces[longest], float(intervals[longest])
    if not np.isfinite(interval):
        return
    found: list[Tick] = []
    velocities: dict[int, str] | None = None
    for index, _ in record.enumerated("observation"):
        values = trace.values[:, index]
        values = values[np.isfinite(values)]
        size = find_tick(values[:_MOST_ROWS])
        speed = 0.0 if size is None else _speed(values, size, interval)
        if size is None or speed == 0.0 or size / interval < VISIBLE * speed:
            continue
        rows = min(max(math.ceil(size / interval / (VISIBLE * speed)), 2), MOST_WINDOW)
        window = float(f"{interval * rows:.2g}")
        velocities = _velocities(record, longest) if velocities is None else velocities
        found.append(Tick(index, size, size / interval, speed, window, velocities.get(index)))
    for is_known in (False, True):
        group = [tick for tick in found if (tick.velocity is not None) == is_known]
        if group:
            yield _finding(record, longest, interval, sorted(group, key=lambda t: -t.resolution / t.speed))


def _velocities(record: Record, longest: int) -> dict[int, str]:
    """By channel, the one that logs its velocity."""
    trace = record.traces[longest]
    columns = {str(k): trace.values[:_MOST_ROWS, k] for k in record.indices("observation")}
    found = find_velocities(columns, trace.time[:_MOST_ROWS], {})
    names: dict[int, str] = {}
    for velocity, position in found.items():
        names.setdefault(int(position), record.channels[int(velocity)].name)
    return names


def _finding(record: Record, longest: int, interval: float, ticks: list[Tick]) -> DataFinding:
    worst = ticks[0]
    channel = record.channels[worst.index]
    names = [record.channels[tick.index].name for tick in ticks]
    more = ""
    if len(ticks) > 1:
        more = " Likewise: " + ", ".join(
            f"{name} ({tick.size:.3g}; {tick.resolution:.3g} of {tick.speed:.3g})"
            for name, tick in zip(names[1:9], ticks[1:9], strict=True)
        )
        more += " ..." if len(ticks) > 9 else "."
    remedy = (
        f"{{name: {channel.name}_velocity, derivative: {channel.source}, window: {worst.window:g}}} "
        f"(steps of {worst.size / worst.window:.2g}), or history: 3 of slower steps."
    )
    if worst.velocity is not None:
        remedy = f"Take the logged velocity, {worst.velocity}, rather than differences of {channel.name}."
    is_coarse = worst.resolution > COARSE * worst.speed and worst.velocity is None
    return DataFinding(
        severity="warning" if is_coarse else "note",
        kind="ticks",
        channels=tuple(names),
        text=f"{channel.name} is quantised in steps of {worst.size:.4g}: a difference over one row of "
        f"{1e3 * interval:.3g} ms leaves velocities in steps of {worst.resolution:.3g} per second, where the "
        f"usual speed is {worst.speed:.3g}.{more}",
        remedy=remedy,
        chart=_chart(record, longest, interval, worst),
    )


def _chart(record: Record, longest: int, interval: float, tick: Tick) -> Chart:
    trace, name = record.traces[longest], record.channels[tick.index].name
    usable = np.isfinite(trace.values[:, tick.index])
    values, time = trace.values[usable, tick.index], trace.time[usable]
    ahead = max(round(tick.window / interval), 2)
    busy = int(np.argmax(np.convolve(np.abs(np.diff(values)), np.ones(150), mode="same")))
    rows = np.arange(max(busy - 100, ahead), min(busy + 100, len(values)))
    curves = [
        Curve(
            label=f"difference over {label}",
            x=tuple(time[rows].tolist()),
            y=tuple(((values[rows] - values[rows - back]) / (back * interval)).tolist()),
        )
        for label, back in (("one row", 1), (f"{1e3 * ahead * interval:.0f} ms", ahead))
    ]
    return Chart(title=f"Velocity of {name}", x_label="time, s", y_label="per second", curves=tuple(curves))


def _speed(values: Floats, tick: float, interval: float) -> float:
    """Root mean square of the rate of change, over stretches in which ticks hardly count."""
    for ahead in (1, 2, 5, 10, 20, 50):
        if len(values) <= 2 * ahead:
            break
        change = values[ahead:] - values[:-ahead]
        size = float(np.sqrt(np.mean(np.square(change))))
        if size > 5 * tick or ahead == 50:
            return size / (ahead * interval)
    return 0.0
