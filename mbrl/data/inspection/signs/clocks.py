"""Clocks: rates that differ, jitter, gaps, resets, repeated stamps."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from mbrl.data.inspection.finding import MAX_PLACES, Chart, Curve, DataFinding, Place
from mbrl.data.inspection.names import short_names
from mbrl.data.inspection.record import Floats, Record

UNLIKE_RATES: Final = 1.25
"""Ratio of the usual intervals of two files from which their rates differ."""

JITTER: Final = 0.05
"""Root mean square distance of the intervals from the usual one, as a share of it, of an uneven clock."""

GAP: Final = 4.0
"""Usual intervals from which a pause is a gap."""


def usual_intervals(record: Record) -> Floats:
    """`[traces]` median seconds between rows; NaN for a single row."""
    return np.array(
        [np.median(np.diff(trace.time)) if len(trace.time) > 1 else np.nan for trace in record.traces]
    )


def find_rates(record: Record) -> Iterator[DataFinding]:
    """Files whose rows come at different rates."""
    usual = usual_intervals(record)
    known = usual[np.isfinite(usual)]
    if not record.is_timed or not len(known) or known.max() < UNLIKE_RATES * known.min():
        return
    names = [name for name, _ in _by_file(record, usual)]
    values = [float(np.nanmedian(intervals)) for _, intervals in _by_file(record, usual)]
    rate = _round_rate(1.0 / float(known.max()))
    order = np.argsort(values)
    shown = [int(k) for k in (order if len(order) <= 12 else [*order[:6], *order[-6:]])]
    fast, slow = names[int(order[0])], names[int(order[-1])]
    yield DataFinding(
        severity="warning",
        kind="rates",
        text=f"Rates differ: rows are {1e3 * known.min():.3g} to {1e3 * known.max():.3g} ms apart by file "
        f"(the fastest is {fast}, the slowest {slow}); a step would mean something else in each.",
        remedy=f"Resample to one control rate: rate: {rate:g}.",
        chart=Chart(
            title="Usual time between rows, by file",
            x_label="ms between rows",
            bars=tuple(names[k] for k in shown),
            curves=(Curve(label="median", x=(), y=tuple(1e3 * values[k] for k in shown)),),
        ),
    )


def find_jitter(record: Record) -> Iterator[DataFinding]:
    """Rows that are not evenly spaced."""
    if not record.is_timed:
        return
    uneven, worst, largest = 0, -1, 0.0
    for index, trace in enumerate(record.traces):
        steps = np.diff(trace.time)
        if len(steps) < 10:
            continue
        usual = float(np.median(steps))
        short = steps[steps <= GAP * usual]
        spread = float(np.sqrt(np.mean(np.square(short - usual)))) / usual
        uneven += spread > JITTER
        if spread > largest:
            worst, largest = index, spread
    if largest <= JITTER:
        return
    steps = 1e3 * np.diff(record.traces[worst].time)
    usual = float(np.median(steps))
    counts, edges = np.histogram(steps, bins=60, range=(0.0, max(3.0 * usual, float(steps.max()))))
    centres, counts = ((edges[:-1] + edges[1:]) / 2)[counts > 0], counts[counts > 0]
    yield DataFinding(
        severity="warning",
        kind="jitter",
        text=f"The clock jitters in {uneven} of {len(record.traces)} runs: in {record.traces[worst].name} "
        f"rows are {usual:.3g} ms apart in the median, {steps.min():.3g} to {steps.max():.3g} ms in all, and "
        f"differ from it by {100 * largest:.0f} % (root mean square).",
        remedy=f"Resample: rate: {_round_rate(1.0 / record.step):g} (states linear, commands averaged).",
        chart=Chart(
            title=f"Time between rows in {record.traces[worst].name}",
            x_label="ms between rows",
            y_label="rows",
            curves=(Curve(label="", x=tuple(centres.tolist()), y=tuple(map(float, counts))),),
            upright=(("median", usual),),
            is_log=True,
            is_dots=True,
        ),
    )


def find_gaps(record: Record) -> Iterator[DataFinding]:
    """Pauses of more than `GAP` usual intervals."""
    if not record.is_timed or not record.is_raw:  # pauses of a dataset are found from its steps
        return
    places: list[Place] = []
    count, longest, ratio, where = 0, 0.0, 0.0, (0, 0)
    for index, trace in enumerate(record.traces):
        steps = np.diff(trace.time)
        if len(steps) < 2:
            continue
        usual = float(np.median(steps))
        rows = np.flatnonzero(steps > GAP * usual)
        count += len(rows)
        for row in rows[:MAX_PLACES].tolist():
            places.append(Place(episode=index, start=float(trace.time[row]), stop=float(trace.time[row + 1])))
        if len(rows) and steps.max() > longest:
            longest, where = float(steps.max()), (index, int(steps.argmax()))
            ratio = longest / usual
    if not count:
        return
    trace, row = record.traces[where[0]], where[1]
    around = np.diff(trace.time)[max(row - 100, 0) : row + 100]
    at = trace.time[max(row - 100, 0) : max(row - 100, 0) + len(around)]
    yield DataFinding(
        severity="warning" if longest > max(record.step, 2 * GAP * longest / ratio) else "note",
        kind="gaps",
        text=f"{count} pauses are longer than {GAP:g} usual intervals; the longest, {1e3 * longest:.3g} ms, "
        f"follows row {row} of {trace.name}.",
        remedy=f"max_gap: {2.5 * longest / ratio:.2g} (no step crosses a longer one), or a "
        f"larger one "
        "to interpolate across short pauses.",
        places=tuple(places[:MAX_PLACES]),
        chart=Chart(
            title=f"Around the longest pause, {trace.name}",
            x_label="time, s",
            y_label="ms to the next row",
            curves=(Curve(label="", x=tuple(at.tolist()), y=tuple((1e3 * around).tolist())),),
        ),
    )


def find_resets(record: Record) -> Iterator[DataFinding]:
    """Clocks that go back, and stamps that stand twice."""
    if record.resets:
        first = record.resets[0]
        places = [_begin(record, fault.trace) for fault in record.resets[:MAX_PLACES]]
        yield DataFinding(
            severity="warning",
            kind="resets",
            text=f"The clock goes back {len(record.resets)} times, first from {first.before:.6g} s to "
            f"{first.after:.6g} s at row {first.row} of {record.traces[first.trace].name}.",
            remedy="time: {restarts: new_episode}, if the clock was reset there; else sort the rows.",
            places=tuple(places),
        )
    if record.repeats:
        first = record.repeats[0]
        yield DataFinding(
            severity="warning",
            kind="repeats",
            text=f"{len(record.repeats)} stamps equal the one above them, first {first.after:.6g} s at row "
            f"{first.row} of {record.traces[first.trace].name}.",
            remedy="time: {repeated: drop} leaves such rows out; check time.unit if there are many.",
            places=tuple(
                Place(episode=fault.trace, start=fault.after, stop=fault.after)
                for fault in record.repeats[:MAX_PLACES]
            ),
        )


def _begin(record: Record, trace: int) -> Place:
    start = float(record.traces[trace].time[0])
    return Place(episode=trace, start=start, stop=start)


def _by_file(record: Record, values: Floats) -> list[tuple[str, list[float]]]:
    groups: dict[str, list[float]] = {}
    for trace, value in zip(record.traces, values.tolist(), strict=True):
        groups.setdefault(trace.file or trace.name, []).append(value)
    kept = [(name, found) for name, found in groups.items() if np.isfinite(found).any()]
    return list(zip(short_names([name for name, _ in kept]), [found for _, found in kept], strict=True))


def _round_rate(rate: float) -> float:
    return float(f"{rate:.2g}") if rate < 200 else 50.0
