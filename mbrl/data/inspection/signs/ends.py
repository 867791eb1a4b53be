"""Ends of episodes: no observation after the last action, and stops that nothing marks."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from mbrl.data.inspection.finding import MAX_PLACES, Chart, Curve, DataFinding, Place
from mbrl.data.inspection.record import Record

EARLY: Final = 0.8
"""Share of the usual (longest quarter's) duration below which an episode ends early."""

EXTREME: Final = 0.995
"""Quantile of a channel's size over whole episodes that it exceeds at an extreme end."""

_LAST_ROWS: Final = 10


def find_missing_final(record: Record) -> Iterator[DataFinding]:
    """Raw runs whose last row still has a command: nothing says what it led to."""
    if not record.is_raw:
        return
    count = sum(not trace.has_final for trace in record.traces)
    if count:
        yield DataFinding(
            severity="note",
            kind="no_final",
            text=f"{count} of {len(record.traces)} runs log no final observation: T rows make T - 1 steps.",
            remedy="None needed: the import leaves the last command out. To keep it, log one more row "
            "with an "
            "empty command (missing: skip).",
        )


def find_early_stops(record: Record) -> Iterator[DataFinding]:
    """Episodes that end early at extreme values and are not marked as terminated."""
    seconds = np.array([trace.seconds for trace in record.traces])
    if len(seconds) < 3:
        return
    usual = float(np.quantile(seconds, 0.75))
    early = [
        k
        for k, trace in enumerate(record.traces)
        if seconds[k] < EARLY * usual and not trace.is_terminated and len(trace.time) > _LAST_ROWS
    ]
    late = [k for k in range(len(seconds)) if seconds[k] >= EARLY * usual]
    stops: dict[int, dict[int, float]] = {}
    for index, _ in record.enumerated("observation"):
        limit = _extreme(record, index)
        ends = {k: size for k in early if (size := _end(record, k, index)) > limit > 0}
        calm = sum(_end(record, k, index) > limit for k in late)
        if len(ends) > calm:  # nor do others end so
            stops[index] = ends
    stops = _fewest(stops)
    stopped = sorted({k for ends in stops.values() for k in ends})
    if len(stopped) < max(2, 0.2 * len(early)):
        return
    names = [record.channels[index].name for index in stops]
    largest = [max(ends[k] for ends in stops.values() if k in ends) for k in stopped]
    limit = float(f"{0.85 * min(largest):.2g}")
    condition = f"abs({names[0]})" if len(names) == 1 else f"max({', '.join(f'abs({n})' for n in names[:4])})"
    times = seconds[stopped]
    yield DataFinding(
        severity="warning",
        kind="early_stops",
        channels=tuple(names),
        text=f"{len(stopped)} of {len(seconds)} episodes end early ({times.min():.3g} to "
        f"{times.max():.3g} s, "
        f"usually {usual:.3g} s), at extreme values of {', '.join(names)} (|value| {min(largest):.3g} to "
        f"{max(largest):.3g}), and nothing marks them: they look like failures.",
        remedy=f'failures: {{limit: "{condition} > {limit:g}"}} (they are terminated then, not cut).',
        places=tuple(
            Place(
                episode=k,
                start=float(record.traces[k].time[-_LAST_ROWS]),
                stop=float(record.traces[k].time[-1]),
            )
            for k in stopped[:MAX_PLACES]
        ),
        chart=_chart(record, next(iter(stops)), stopped),
    )


def _fewest(stops: dict[int, dict[int, float]]) -> dict[int, dict[int, float]]:
    """Channels that explain the stops: the one that explains most, then those that explain two more."""
    chosen: dict[int, dict[int, float]] = {}
    explained: set[int] = set()
    while stops:
        best = max(stops, key=lambda index: len(stops[index].keys() - explained))
        if len(stops[best].keys() - explained) < 2:
            break
        chosen[best] = stops[best]
        explained |= stops[best].keys()
        stops = {index: ends for index, ends in stops.items() if index != best}
    return chosen


def _chart(record: Record, index: int, stopped: list[int]) -> Chart:
    curves: list[Curve] = []
    for label, chosen in (("ends early", stopped), ("runs on", set(range(len(record.traces))) - {*stopped})):
        ends = [(record.traces[k].seconds, _end(record, k, index)) for k in sorted(chosen)[:300]]
        curves.append(Curve(label=label, x=tuple(x for x, _ in ends), y=tuple(y for _, y in ends)))
    name = record.channels[index].name
    return Chart(
        title="How episodes end",
        x_label="duration, s",
        y_label=f"largest |{name}| at the end",
        curves=tuple(curves),
        is_dots=True,
    )


def _end(record: Record, episode: int, index: int) -> float:
    """Largest size of the last rows."""
    return float(np.nan_to_num(np.abs(record.traces[episode].values[-_LAST_ROWS:, index])).max(initial=0.0))


def _extreme(record: Record, index: int) -> float:
    """Size that few rows before the ends of episodes exceed."""
    whole = np.concatenate([np.abs(trace.values[:-_LAST_ROWS, index]) for trace in record.traces])
    whole = whole[:: max(len(whole) // 200_000, 1)]
    whole = whole[np.isfinite(whole)]
    return float(np.quantile(whole, EXTREME)) if len(whole) else np.inf
