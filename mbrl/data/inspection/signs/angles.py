"""Angles that jump by a turn, and those that count turns on."""

from collections.abc import Iterator

import numpy as np

from mbrl.data.importing.guess.columns import TURNS, find_turn
from mbrl.data.inspection.finding import MAX_PLACES, Chart, Curve, DataFinding, Place
from mbrl.data.inspection.record import Record


def find_wraps(record: Record) -> Iterator[DataFinding]:
    """Channels that jump from one end of a turn to the other."""
    for index, channel in record.enumerated("observation", "other"):
        turn = find_turn(record.column(index))
        if turn is None:
            continue
        places: list[Place] = []
        count = 0
        for number, trace in enumerate(record.traces):
            rows = np.flatnonzero(np.abs(np.diff(trace.values[:, index])) > 0.9 * turn)
            count += len(rows)
            places += [
                Place(
                    episode=number,
                    start=float(trace.time[r]),
                    stop=float(trace.time[r + 1]),
                    channel=channel.name,
                )
                for r in rows[: MAX_PLACES - len(places)].tolist()
            ]
        scale = "" if turn < 100 else "scale: 0.017453292519943295, "
        first = record.traces[places[0].episode]
        row = int(np.searchsorted(first.time, places[0].start))
        part = slice(max(row - 150, 0), row + 150)
        yield DataFinding(
            severity="warning",
            kind="wraps",
            channels=(channel.name,),
            text=f"{channel.name} is an angle that wraps: it jumps by a turn ({turn:.4g}) {count} times.",
            remedy=f"{{column: {channel.source}, {scale}wrap: cossin}}, or wrap: unwrap if turns count.",
            places=tuple(places),
            chart=Chart(
                title=f"{channel.name} around a jump, {first.name}",
                x_label="time, s",
                y_label=channel.name,
                curves=(
                    Curve(
                        label="",
                        x=tuple(first.time[part].tolist()),
                        y=tuple(first.values[part, index].tolist()),
                    ),
                ),
            ),
        )


def find_turns(record: Record) -> Iterator[DataFinding]:
    """Angles that run past a turn: one pose of the machine has several values."""
    found: list[tuple[str, str, float, float, float]] = []
    for index, channel in record.enumerated("observation"):
        columns = [values for values in record.column(index) if len(values)]
        if not channel.may_be_angle or not columns or find_turn(columns) is not None:
            continue
        low, high = min(float(v.min()) for v in columns), max(float(v.max()) for v in columns)
        step = max(float(np.abs(np.diff(values)).max(initial=0.0)) for values in columns)
        turn = TURNS[1] if channel.unit == "deg" else TURNS[0]
        if turn < high - low <= 50 * turn and step < 0.5 * turn:
            found.append((channel.name, channel.source, turn, low, high))
    if not found:
        return
    listed = ", ".join(f"{name} ({low:.3g} to {high:.3g})" for name, _, _, low, high in found)
    yield DataFinding(
        severity="warning",
        kind="turns",
        channels=tuple(name for name, *_ in found),
        text=f"Angles wrap past a full turn: {listed}. One pose of the machine has several values.",
        remedy=f"{{column: {found[0][1]}, wrap: cossin}}, if these are angles of joints that turn freely.",
        chart=Chart(
            title="Range of angles that pass a turn",
            x_label="values",
            bars=tuple(name for name, *_ in found),
            curves=(
                Curve(label="from least to largest", x=(), y=tuple(high - low for *_, low, high in found)),
                Curve(label="a turn", x=(), y=tuple(turn for _, _, turn, *_ in found)),
            ),
        ),
    )
