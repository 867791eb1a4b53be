"""Files that do not belong together: other columns, texts for numbers, other units, copies."""

import re
from collections.abc import Iterator
from typing import Final

import numpy as np

from mbrl.data.inspection.finding import MAX_PLACES, Chart, Curve, DataFinding, Place
from mbrl.data.inspection.names import short_names
from mbrl.data.inspection.record import Floats, Record
from mbrl.data.inspection.rows import find_copied_rows, hash_rows

SLIP: Final = 8.0
"""Ratio of scales from which a slip of units is thought of."""

FACTORS: Final = {
    57.29578: "radians and degrees",
    1000.0: "a unit and its thousandth",
    100.0: "metres and centimetres",
    9.80665: "g and m/s^2",
    60.0: "seconds and minutes",
    1e6: "a unit and its millionth",
}
"""Constant factors between units."""

_MOST_GROUPS: Final = 128  # of more files, consecutive ones are taken together
_COMPLEX: Final = re.compile(r"\(.*j\)")


def find_other_columns(record: Record) -> Iterator[DataFinding]:
    """Files of a folder whose columns differ from those of most others."""
    if len(record.headers) > 1:
        ranked = sorted(record.headers.items(), key=lambda entry: -len(entry[1]))
        usual = max((h for h, _ in ranked), key=lambda h: sum(c.source in h for c in record.channels))
        others = [(header, files) for header, files in ranked if header != usual]
        texts: list[str] = []
        for header, files in others[:5]:
            added = [name for name in header if name not in usual]
            gone = [name for name in usual if name not in header]
            has, lacks = ("has", "lacks") if len(files) == 1 else ("have", "lack")
            differs = [f"{has} {', '.join(added[:8])}"] if added else []
            differs += [f"{lacks} {', '.join(gone[:8])}"] if gone else []
            shown = short_names([*files, *record.headers[usual]])[0]
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            texts.append(f"{shown}{more} {' and '.join(differs) or f'{has} them in another order'}")
        needed = {channel.source for channel in record.channels if channel.role != "other"}
        is_lacking = any(needed & set(usual) - set(header) for header, _ in others)
        yield DataFinding(
            severity="warning" if is_lacking else "note",
            kind="columns",
            text=f"Columns drift inside the folder: {'; '.join(texts)}.",
            remedy="Read columns by name. Give files of other columns a schema of their own, or leave "
            "them out: "
            'files: "PATTERN".',
        )
    examined = {trace.file for trace in record.traces}
    for path, columns in record.texts.items():
        file = "/".join(path.rsplit("/", 2)[-2:])
        name, example = next(iter(columns.items()))
        what = "complex numbers" if _COMPLEX.search(example) else "texts"
        yield DataFinding(
            severity="error" if path in examined else "warning",
            kind="texts",
            text=f"{file}: {', '.join(columns)} hold {what}, no numbers ({name} is {example[:40]!r}).",
            remedy='Leave the file out (files: "PATTERN"), or write its real numbers.',
        )
    for file, fault in list(record.faults.items())[:20]:
        yield DataFinding(
            severity="warning",
            kind="unread",
            text=f"{file} is not examined: {fault}.",
            remedy='Correct it, or leave it out: files: "PATTERN".',
        )


def find_unit_slips(record: Record) -> Iterator[DataFinding]:
    """Channels that are larger in some files by a constant factor while the others stay as they are."""
    groups = _file_groups(record)
    if len(groups) < 3:
        return
    scales = np.array(
        [[_scales(record, members, k) for k in range(len(record.channels))] for _, members in groups]
    )
    usual = np.array([_median(scales[:, k]) for k in range(len(record.channels))])  # [channels, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(scales / usual)
    for index, _ in record.enumerated():
        others = [k for k in record.indices("observation", "action") if k != index]
        slipped: list[tuple[int, float]] = []
        for number in range(len(groups)):
            own = ratio[number, index]
            if not np.isfinite(own).all() or np.ptp(own) > np.log(2.0):
                continue
            size = float(np.median(own))
            rest = ratio[number][others, 1]
            rest = rest[np.isfinite(rest)]
            calm = not len(rest) or float(np.median(np.abs(rest))) < np.log(3.0)
            if abs(size) > np.log(SLIP) and calm:
                slipped.append((number, size))
        sizes = [size for _, size in slipped]
        if not slipped or len(slipped) > len(groups) / 2 or np.ptp(sizes) > np.log(3.0):
            continue
        factor = float(np.exp(np.median(sizes)))
        known = _known_factor(factor)
        if known is None:
            continue
        yield _slip(record, index, groups, slipped, scales[:, index, 0], factor=factor, known=known)


def _slip(
    record: Record,
    index: int,
    groups: list[tuple[str, list[int]]],
    slipped: list[tuple[int, float]],
    sizes: Floats,
    *,
    factor: float,
    known: tuple[float, str],
) -> DataFinding:
    name = record.channels[index].name
    files = [groups[number][0] for number, _ in slipped]
    is_large = factor > 1
    size = known[0]
    places = [
        Place(
            episode=k,
            start=float(record.traces[k].time[0]),
            stop=float(record.traces[k].time[-1]),
            channel=name,
        )
        for number, _ in slipped
        for k in groups[number][1]
    ]
    shown = list(range(len(groups))) if len(groups) <= 24 else [number for number, _ in slipped][:24]
    return DataFinding(
        severity="warning",
        kind="unit_slip",
        channels=(name,),
        text=f"{name} is {factor if is_large else 1 / factor:.3g} times "
        f"{'larger' if is_large else 'smaller'} in "
        f"{', '.join(files[:4])}{' ...' if len(files) > 4 else ''} than elsewhere, near {size:g}: "
        f"{known[1]}?",
        remedy=f"Import these files by a schema of their own with scale: "
        f"{1 / size if is_large else size:.6g}, or "
        "correct them.",
        places=tuple(places[:MAX_PLACES]),
        chart=Chart(
            title=f"Spread of {name} by file",
            x_label="standard deviation",
            bars=tuple(groups[number][0] for number in shown),
            curves=(Curve(label="spread", x=(), y=tuple(float(sizes[number]) for number in shown)),),
        ),
    )


def _median(scales: Floats) -> Floats:
    """`[3]` of `[files, 3]`, without files in which the channel stands still."""
    known = scales[np.isfinite(scales).all(axis=1)]
    return np.median(known, axis=0) if len(known) else np.full(3, np.nan)


def _known_factor(factor: float) -> tuple[float, str] | None:
    size = max(factor, 1 / factor)
    best = min(FACTORS, key=lambda known: abs(np.log(size / known)))
    return (best, FACTORS[best]) if abs(np.log(size / best)) < np.log(1.4) else None


def _file_groups(record: Record) -> list[tuple[str, list[int]]]:
    groups: dict[str, list[int]] = {}
    for index, trace in enumerate(record.traces):
        groups.setdefault(trace.file or trace.name, []).append(index)
    named = list(zip(short_names(list(groups)), groups.values(), strict=True))
    together = -(-len(named) // _MOST_GROUPS)
    if together == 1:
        return named
    return [
        (f"{part[0][0]} to {part[-1][0]}", [k for _, members in part for k in members])
        for part in (named[start : start + together] for start in range(0, len(named), together))
    ]


def _scales(record: Record, members: list[int], index: int) -> list[float]:
    """Spread, spread of the change over a row, and largest size of a channel; NaN where it stands still."""
    columns = [record.traces[k].values[:, index] for k in members]
    columns = [values[np.isfinite(values)] for values in columns]
    whole = np.concatenate(columns)
    if len(whole) < 20 or whole.min() == whole.max():
        return [np.nan] * 3
    changes = np.concatenate([np.diff(values) for values in columns])
    return [float(whole.std()), float(changes.std()), float(np.abs(whole).max())]


def find_copies(record: Record) -> Iterator[DataFinding]:
    """Stretches of raw rows that repeat others number by number; of datasets, those of steps are found."""
    chosen = record.indices("observation", "action")
    if not record.is_raw or not chosen:
        return
    rows = np.concatenate([np.nan_to_num(trace.values[:, chosen]) for trace in record.traces])
    episode = np.repeat(np.arange(len(record.traces)), [len(trace.time) for trace in record.traces])
    is_copy = find_copied_rows(hash_rows(rows), episode)
    if is_copy.sum() < 0.001 * len(rows):
        return
    starts = np.concatenate([[0], np.cumsum([len(trace.time) for trace in record.traces])])
    places: list[Place] = []
    touched: list[int] = np.unique(episode[is_copy]).tolist()
    for k in touched:
        own = np.flatnonzero(is_copy[starts[k] : starts[k + 1]])
        time = record.traces[k].time
        places.append(Place(episode=k, start=float(time[own[0]]), stop=float(time[own[-1]])))
    names = [record.traces[place.episode].name for place in places]
    yield DataFinding(
        severity="warning",
        kind="copies",
        text=f"{int(is_copy.sum())} rows are copied from other runs number by number, in "
        f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}.",
        remedy='Leave copies out (files: "PATTERN"): they may stand on both sides of a split.',
        places=tuple(places[:MAX_PLACES]),
    )
