"""Time stamps to seconds, and the rows that belong together: between two restarts of the clock."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.importing.schema import TimeConfig
from mbrl.data.importing.tables import Table

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9, "datetime": 10**9}


def read_clock(table: Table, config: TimeConfig) -> NDArray[np.float64]:
    """`[rows]` seconds, as they stand in the file, from the first stamp on where they count from an epoch.

    Raises:
        DataError: stamps are missing, no numbers, or dates where numbers were announced.
    """
    if config.column is None:
        assert config.step is not None
        return np.arange(table.rows, dtype=np.float64) * config.step
    stamps = table.columns[config.column]
    if stamps.dtype.kind == "U":
        raise DataError(
            f"{str(stamps[0])[:40]!r} is no time stamp",
            file=table.file,
            field=config.column,
            row=table.number(0),
            remedy="Give numbers or dates such as 2024-05-01T12:00:00, and csv.decimal if it is a comma.",
        )
    is_date = stamps.dtype.kind == "M"
    if is_date != (config.unit == "datetime"):
        raise DataError(
            f"stamps are {'dates' if is_date else 'numbers'}, and time.unit is {config.unit}",
            file=table.file,
            field=config.column,
            remedy=f"Set time.unit to {'datetime' if is_date else 's, ms, us or ns'}.",
        )
    is_bad = np.isnat(stamps) if is_date else ~np.isfinite(stamps.astype(np.float64))
    if bool(is_bad.any()):
        row = int(is_bad.argmax())
        raise DataError(
            f"{int(is_bad.sum())} rows have no time stamp",
            file=table.file,
            field=config.column,
            row=table.number(row),
            remedy="Leave these rows out of the file.",
        )
    whole = stamps.astype(np.int64) if is_date or stamps.dtype.kind in "iu" else stamps
    if config.epoch or is_date:
        whole = whole - whole[0]  # before anything is rounded
    return whole.astype(np.float64) / _PER_SECOND[config.unit]


def read_clocks(tables: Sequence[Table], configs: Sequence[TimeConfig]) -> list[NDArray[np.float64]]:
    """`[rows]` seconds of each of several files of a run, on one axis where they count from a common day.

    Raises:
        DataError: see `read_clock`.
    """
    clocks = [read_clock(table, config) for table, config in zip(tables, configs, strict=True)]
    origins = [_origin(table, config) for table, config in zip(tables, configs, strict=True)]
    first = min((origin for origin in origins if origin is not None), default=0)
    return [
        time if origin is None else time + (origin - first) / 1e9
        for time, origin in zip(clocks, origins, strict=True)
    ]


def _origin(table: Table, config: TimeConfig) -> int | None:
    """Nanoseconds of the first stamp since the epoch; None for a clock that counts from no common day."""
    if config.column is None:
        return None
    first = table.columns[config.column][0]
    is_date = table.columns[config.column].dtype.kind == "M"
    if not (config.epoch or is_date):
        return None
    per_stamp = 10**9 // _PER_SECOND[config.unit]
    return int(first.astype(np.int64)) if is_date else round(per_stamp * first.item())


def cut_at_restarts(
    table: Table, time: NDArray[np.float64], config: TimeConfig, counts: Counter[str]
) -> list[NDArray[np.int64]]:
    """Row numbers of each stretch within which time ascends; rows with a repeated stamp are left out.

    Raises:
        DataError: the clock goes back or stands, and the schema does not say what that means.
    """
    step = np.diff(time)
    back, still = step < 0, step == 0
    _refuse(table, config, time, still, "repeated")
    _refuse(table, config, time, back, "restarts")
    kept = np.concatenate([[True], ~still])
    rows = np.arange(len(time))[kept]
    stops = np.flatnonzero(np.diff(time[rows]) < 0) + 1
    counts["rows left out: repeated time stamp"] += int(still.sum())
    counts["episodes begun where the clock restarts"] += len(stops)
    return np.split(rows, stops)


def _refuse(
    table: Table, config: TimeConfig, time: NDArray[np.float64], found: NDArray[np.bool_], key: str
) -> None:
    if not bool(found.any()) or getattr(config, key) != "error":
        return
    row = int(found.argmax()) + 1
    remedies = {
        "restarts": "Set time.restarts to new_episode if the clock was reset there; else sort the rows.",
        "repeated": "Set time.repeated to drop to leave such rows out; else check time.unit.",
    }
    raise DataError(
        f"time goes from {time[row - 1]:.9g} s to {time[row]:.9g} s ({int(found.sum())} such rows)",
        file=table.file,
        field=config.column or "time",
        row=table.number(row),
        remedy=remedies[key],
    )
