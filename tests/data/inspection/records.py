"""A driven oscillator, logged without a fault; tests add one fault each."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mbrl.data.inspection.finding import DataFinding
from mbrl.data.inspection.record import Channel, Floats, Record, Trace

STEP = 0.02
CHANNELS = (
    Channel("x", "observation", "pos_x", "m"),
    Channel("v", "observation", "vel_x", "m/s"),
    Channel("u", "action", "cmd", "N"),
)


def oscillator(rows: int, seed: int, *, delay: int = 0, gain: float = 1.0) -> Floats:
    """`[rows, 3]` position, velocity and a random force that acts `delay` rows later; the last has none."""
    generator = np.random.default_rng(seed)
    force = np.zeros(rows)
    for row in range(1, rows):
        force[row] = 0.7 * force[row - 1] + generator.normal()
    position, velocity = np.zeros(rows), np.zeros(rows)
    noise = 0.002 * generator.normal(size=(2, rows))
    for row in range(rows - 1):
        acting = force[row - delay] if row >= delay else 0.0
        velocity[row + 1] = velocity[row] + STEP * (
            -9.0 * position[row] - 0.6 * velocity[row] + 4.0 * gain * acting
        )
        position[row + 1] = position[row] + STEP * velocity[row + 1]
        velocity[row + 1] += noise[0, row]
        position[row + 1] += 0.05 * noise[1, row]
    force[-1] = np.nan
    return np.stack([position, velocity, force], axis=1)


def clean(traces: int = 8, rows: int = 600, *, delay: int = 0, gain: float = 1.0) -> Record:
    """Files of one machine with an even clock; commands end one row before the observations."""
    made = tuple(
        Trace(
            f"run{k}",
            f"log/run{k}.csv",
            STEP * np.arange(rows),
            oscillator(rows, k, delay=delay, gain=gain),
            has_final=True,
        )
        for k in range(traces)
    )
    headers = {("t", "pos_x", "vel_x", "cmd"): tuple(trace.file for trace in made)}
    return Record("toy", CHANNELS, made, STEP, is_raw=True, headers=headers)


def edited(record: Record, change: Callable[[int, Floats], Floats | None]) -> Record:
    """The record with values changed in place, trace by trace, or replaced by what `change` returns."""
    traces: list[Trace] = []
    for index, trace in enumerate(record.traces):
        values = trace.values.copy()
        result = change(index, values)
        traces.append(dataclasses.replace(trace, values=values if result is None else result))
    return dataclasses.replace(record, traces=tuple(traces))


def retimed(record: Record, clock: Callable[[int, Floats], Floats]) -> Record:
    """The record with other stamps."""
    traces = [
        dataclasses.replace(trace, time=clock(index, trace.time)) for index, trace in enumerate(record.traces)
    ]
    return dataclasses.replace(record, traces=tuple(traces))


def only(findings: "list[DataFinding]") -> DataFinding:
    """The single finding of a list."""
    assert len(findings) == 1, [finding.text for finding in findings]
    return findings[0]
