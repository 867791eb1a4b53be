"""Sensors that stand still while the machine moves, are dead, or end at a rail."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mbrl.data.importing.guess.columns import is_reference
from mbrl.data.inspection.finding import MAX_PLACES, Chart, Curve, DataFinding, Place, Severity
from mbrl.data.inspection.record import Floats, Record, Role, Trace

STUCK_ROWS: Final = 50
"""Equal rows from which a sensor may be stuck."""

STUCK_FACTOR: Final = 20.0
"""And so many times its usual run of equal rows (99 % of them are shorter)."""

AT_RAIL: Final = 0.01
"""Share of the rows at the least or largest value from which a signal saturates."""

_MOVES: Final = 0.3  # standard deviations that another channel varies by while the machine moves


def runs_of(values: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row and length of every run of equal values."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(values) != 0) + 1]).astype(np.int64)
    return starts, np.diff(np.append(starts, len(values)))


def find_dead(record: Record) -> Iterator[DataFinding]:
    """Columns that never change; constants of a dataset are found from its dimensions."""
    if not record.is_raw:
        return
    roles: tuple[tuple[Role, Severity], ...] = (("observation", "note"), ("action", "warning"))
    for role, severity in roles:
        dead: list[str] = []
        for index, channel in record.enumerated(role):
            columns = [values for values in record.column(index) if len(values)]
            if columns and max(float(v.max()) for v in columns) == min(float(v.min()) for v in columns):
                dead.append(channel.name)
        if dead:
            yield DataFinding(
                severity=severity,
                kind="dead",
                channels=tuple(dead),
                text=f"These {role}s never change: {', '.join(dead)}.",
                remedy=f"Leave them out of {role}s, or log data in which they vary.",
            )


def find_stuck(record: Record) -> Iterator[DataFinding]:
    """Observations that keep one value for long while others move, unlike the rest of the log."""
    watched = record.indices("observation")
    scale = _scales(record)
    for index in watched:
        if scale[index] == 0 or is_reference(record.channels[index].source):
            continue  # a setpoint stands still while the machine moves
        places: list[Place] = []
        worst: tuple[int, int, int] = (0, 0, 0)  # rows, trace, first row
        values: list[float] = []
        runs = [runs_of(trace.values[:, index]) for trace in record.traces]
        lengths = np.concatenate([length for _, length in runs])
        usual = float(np.quantile(lengths, 0.99 if len(lengths) > 1000 else 0.9))
        least = max(STUCK_ROWS, STUCK_FACTOR * usual)
        for number, (trace, (starts, length)) in enumerate(zip(record.traces, runs, strict=True)):
            for run in np.flatnonzero(length >= least).tolist():
                rows = slice(int(starts[run]), int(starts[run] + length[run]))
                if not _others_move(trace, rows, [k for k in watched if k != index], scale):
                    continue
                time = trace.time[rows]
                places.append(
                    Place(
                        episode=number,
                        start=float(time[0]),
                        stop=float(time[-1]),
                        channel=record.channels[index].name,
                    )
                )
                values.append(float(trace.values[rows.start, index]))
                worst = max(worst, (int(length[run]), number, int(starts[run])))
        touched = {place.episode for place in places}
        if places and not _is_rest(values) and len(touched) <= max(1, len(record.traces) / 2):
            yield _stuck(record, index, places, worst)


def _is_rest(values: list[float]) -> bool:
    """Whether most stretches have one value: a signal that is often off, where a stuck one stops anywhere."""
    return len(values) >= 3 and max(values.count(value) for value in values) > len(values) / 2


def _stuck(record: Record, index: int, places: list[Place], worst: tuple[int, int, int]) -> DataFinding:
    rows, number, first = worst
    trace, name = record.traces[number], record.channels[index].name
    part = slice(max(first - rows // 4, 0), first + rows + rows // 4)
    at = np.arange(len(trace.time))[part][:: max(rows // 300, 1)]
    return DataFinding(
        severity="warning",
        kind="stuck",
        channels=(name,),
        text=f"{name} is stuck {len(places)} times while other channels move, the longest for {rows} rows "
        f"from {trace.time[first]:.4g} s in {trace.name}.",
        remedy="Cut these stretches out of the files, or leave the files out: a model would learn them.",
        places=tuple(places[:MAX_PLACES]),
        chart=Chart(
            title=f"{name} in {trace.name}",
            x_label="time, s",
            y_label=name,
            curves=(Curve(label="", x=tuple(trace.time[at].tolist()), y=_plain(trace.values[at, index])),),
        ),
    )


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(np.nan_to_num(values).tolist())


def _scales(record: Record) -> Floats:
    """`[channels]` standard deviations over all rows."""
    columns = [np.concatenate(record.column(index)) for index in range(len(record.channels))]
    return np.array([float(values.std()) if len(values) else 0.0 for values in columns])


def _others_move(trace: Trace, rows: slice, others: list[int], scale: Floats) -> bool:
    part = trace.values[rows][:, others]
    part = part[np.isfinite(part).all(axis=1)]
    if not len(part) or not others:
        return False
    spread = part.std(axis=0)
    return bool((spread[scale[others] > 0] > _MOVES * scale[others][scale[others] > 0]).any())


def find_saturation(record: Record) -> Iterator[DataFinding]:
    """Signals that stay at their least or largest value, where their neighbours are rare.

    Of a dataset, actions at their bounds are found from its dimensions; what a simulator clips is its task's.
    """
    found: list[tuple[str, str, str, float, float]] = []
    roles: tuple[Role, ...] = ("observation", "action") if record.is_raw else ("observation",)
    if record.is_simulated:
        return
    for index, channel in record.enumerated(*roles):
        values = np.concatenate(record.column(index))
        if len(values) < 100 or len(np.unique(values[:: max(len(values) // 5000, 1)])) < 8:
            continue
        low, high = float(values.min()), float(values.max())
        width = high - low
        for rail, inner in ((low, values - low), (high, high - values)):
            share = float((inner <= 1e-6 * width).mean())
            near = float(((inner > 1e-6 * width) & (inner <= 0.02 * width)).mean())
            moves = _leaves_rail(record, index, rail, 1e-6 * width)
            if share > AT_RAIL and share > 3 * near and moves:
                found.append((channel.name, channel.role, channel.source, rail, share))
    for role in ("observation", "action"):
        own = [entry for entry in found if entry[1] == role]
        if not own:
            continue
        listed = ", ".join(f"{name} at {rail:.4g} ({100 * share:.0f} %)" for name, _, _, rail, share in own)
        name, source = own[0][0], own[0][2]
        rails = [rail for other, _, _, rail, _ in own if other == name]
        bounds = f"{{column: {source}, low: {min(rails):.4g}, high: {max(rails):.4g}}}"
        if len(rails) == 1:
            bounds = f"{{column: {source}, low: {-abs(rails[0]):.4g}, high: {abs(rails[0]):.4g}}}"
        remedy = {
            "action": f"{bounds}, if these are bounds of the machine.",
            "observation": "Beyond that value the sensor says nothing: end episodes there (termination:), or "
            "leave those stretches out.",
        }[role]
        yield DataFinding(
            severity="note" if role == "action" else "warning",
            kind="saturation",
            channels=tuple(dict.fromkeys(entry[0] for entry in own)),
            text=f"{role.capitalize()}s saturate: {listed}.",
            remedy=remedy,
            chart=Chart(
                title=f"Rows at a rail, {role}s",
                x_label="rows, %",
                bars=tuple(f"{entry[0]} = {entry[3]:.3g}" for entry in own[:24]),
                curves=(Curve(label="rows", x=(), y=tuple(100 * entry[4] for entry in own[:24])),),
            ),
        )


def _leaves_rail(record: Record, index: int, rail: float, margin: float) -> bool:
    """Whether the rail is met many times: a machine that rests somewhere comes there once."""
    visits = 0
    for trace in record.traces:
        at = np.abs(trace.values[:, index] - rail) <= margin
        visits += int((at[1:] & ~at[:-1]).sum()) + int(at[:1].sum())
    return visits >= 3
