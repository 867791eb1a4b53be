"""Raw files to a record: as they lie there, since what an import would refuse is what is looked for."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.importing.clock import read_clocks
from mbrl.data.importing.guess.files import MAYBE_TABLES, TABLES, find_files
from mbrl.data.importing.guess.write import guess_files
from mbrl.data.importing.importer import resolve
from mbrl.data.importing.runs import FileKind, Run, add_derived, group_files, list_files
from mbrl.data.importing.schema import ALL, ImportSchema
from mbrl.data.importing.signals import usual_interval
from mbrl.data.importing.tables import Table, column_names, read_table, unknown_column
from mbrl.data.inspection.names import short_names
from mbrl.data.inspection.record import Channel, ClockFault, Floats, Record, Trace

MAX_CHANNELS: Final = 200
"""Columns that are examined; those of the schema come first."""

_MANY_REPEATS: Final = 100_000


def is_table(path: Path) -> bool:
    """Whether a path is a raw table by its suffix."""
    return path.is_file() and path.suffix.lower() in MAYBE_TABLES


def holds_tables(path: Path) -> bool:
    """Whether a folder holds tables, in it or in folders below."""
    return path.is_dir() and any(file.suffix.lower() in TABLES for file in path.rglob("*") if file.is_file())


def read_record(paths: Sequence[Path], schema: ImportSchema | None = None) -> tuple[Record, ImportSchema]:
    """Reads raw files as they lie there.

    Args:
        paths: files, or folders of them.
        schema: what the columns are; None guesses.

    Returns:
        All numeric columns by the names of the schema, and the schema.

    Raises:
        DataError: nothing is there, the files are no tables, or a column of the schema is missing from the
            first of them.
    """
    around = _tables_of(paths)
    if schema is None:
        schema = guess_files(around or paths).schema
        files = _matching(around or list(paths), schema)
    else:
        files = list_files(paths, schema)
    builder = _Builder(schema)
    runs = group_files(files, schema)
    first = next((run for run in runs if builder.fault(run) is None), None)
    if first is None:  # the error of an import names the column that was meant
        places = [
            *schema.read_columns(),
            *(("time.column", n) for n in [schema.time.column] if n is not None),
        ]
        _refuse_unknown(runs[0], schema, places)
        first = runs[0]
    resolved = resolve(schema, first)
    builder.name_channels(resolved, first)
    for run in runs:
        builder.add(run)
    if not builder.traces:
        reasons = "; ".join(builder.faults.values())
        raise DataError(f"no file can be examined ({reasons[:500]})", file=files[0], remedy="Correct them.")
    for file in around:
        builder.see_header(file)
    return builder.record(resolved), resolved


def _tables_of(paths: Sequence[Path]) -> list[Path]:
    """Tables that are named, and those of folders by their suffix."""
    folders = [path for path in paths if path.is_dir()]
    named = [path for path in paths if not path.is_dir()]
    inside = [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]
    found = [file for file in inside if file.suffix.lower() in TABLES]
    return [*find_files(named), *found] if named else found


def _matching(files: list[Path], schema: ImportSchema) -> list[Path]:
    """The files that a guessed schema speaks of: those with its columns."""
    wanted = {name for _, name in schema.read_columns()} - set(schema.columns)
    if schema.sources:
        return list_files(files, schema)
    return [file for file in files if wanted <= set(_names(file, schema))] or files


def _names(file: Path, schema: ImportSchema) -> list[str]:
    try:
        return column_names(file, schema.csv)
    except DataError:
        return []


def _refuse_unknown(run: Run, schema: ImportSchema, places: Sequence[tuple[str, str]]) -> None:
    """Raises for the first column that no file of a run has.

    Args:
        run: the files.
        schema: how they are read.
        places: where the schema names a column, and its name.

    Raises:
        DataError: a column is missing.
    """
    names = [*run.columns(FileKind.of(schema)), *schema.columns]
    for place, name in places:
        if not name.endswith(ALL) and name not in names:
            raise unknown_column(name, names, place=place, file=run.files[0])


class _Builder:
    """Gathers the traces of runs."""

    def __init__(self, schema: ImportSchema) -> None:
        self._kinds = FileKind.of(schema)
        self._schema = schema
        self._channels: list[Channel] = []
        self._scales: dict[str, tuple[float, float]] = {}
        self.traces: list[Trace] = []
        self.faults: dict[str, str] = {}
        self._headers: dict[tuple[str, ...], list[str]] = {}
        self._texts: dict[str, dict[str, str]] = {}
        self._resets: list[ClockFault] = []
        self._repeats: list[ClockFault] = []

    def fault(self, run: Run) -> str | None:
        """Why a run cannot be read by the schema; None if it can."""
        try:
            known = set(run.columns(self._kinds))
        except DataError as error:
            return error.problem
        times = {kind.time.column for kind in self._kinds} - {None}
        wanted = {name for _, name in self._schema.read_columns() if not name.endswith(ALL)}
        lacking = sorted((wanted | times) - known - set(self._schema.columns), key=str)  # type: ignore[operator]
        return f"it lacks the columns {', '.join(map(str, lacking[:8]))}" if lacking else None

    def name_channels(self, schema: ImportSchema, run: Run) -> None:
        """Channels of the schema by their names, then the other columns by theirs."""
        seen: set[str] = set()
        for role, channels in (("observation", schema.observations), ("action", schema.actions)):
            for channel in channels:
                if channel.column is None or channel.column in seen:
                    continue
                seen.add(channel.column)
                self._scales[channel.column] = (channel.scale or 1.0, channel.offset)
                self._channels.append(
                    Channel(channel.label, role, channel.column, channel.unit or "")  # type: ignore[arg-type]
                )
        skip = {kind.time.column for kind in self._kinds} | seen | {schema.episodes.column}
        names = [*run.columns(self._kinds), *schema.columns]
        taken = {channel.name for channel in self._channels}
        for name in dict.fromkeys(names):
            if name not in skip and len(self._channels) < MAX_CHANNELS:
                self._channels.append(Channel(f"{name} (column)" if name in taken else name, "other", name))

    def add(self, run: Run) -> None:
        """Reads the files of a run, joined by time, and cuts them where the clock goes back."""
        reason = self.fault(run)
        if reason is None:
            try:
                tables = [self._read(kind, file) for kind, file in zip(self._kinds, run.files, strict=True)]
                clocks = read_clocks(tables, [kind.time for kind in self._kinds])
            except DataError as error:
                reason = error.problem
            else:
                self._cut(run, tables, clocks)
        if reason is not None:
            self.faults[run.name] = reason

    def _read(self, kind: FileKind, file: Path) -> Table:
        names = column_names(file, kind.csv)
        table = read_table(file, kind.csv, [], raw=names)
        if table.rows < 2:
            raise DataError("it has fewer than two rows", file=file)
        return dataclasses.replace(
            table, columns={kind.columns.get(name, name): values for name, values in table.columns.items()}
        )

    def _cut(self, run: Run, tables: Sequence[Table], clocks: Sequence[Floats]) -> None:
        """Other files are read at the rows of the one with most of them."""
        lead = int(np.argmax([table.rows for table in tables]))
        time = clocks[lead]
        columns = self._numbers(run, tables, clocks, lead=lead)
        steps = np.diff(time)
        base = len(self.traces)
        repeats, resets = np.flatnonzero(steps == 0) + 1, np.flatnonzero(steps < 0) + 1
        values = np.full((len(time), len(self._channels)), np.nan)
        for index, channel in enumerate(self._channels):
            if channel.source in columns:
                scale, offset = self._scales.get(channel.source, (1.0, 0.0))
                values[:, index] = scale * columns[channel.source] + offset
        labels = tables[0].columns.get(self._schema.episodes.column or "") if lead == 0 else None
        changes = (
            np.zeros(0, dtype=np.int64) if labels is None else np.flatnonzero(labels[1:] != labels[:-1]) + 1
        )
        actions = [k for k, channel in enumerate(self._channels) if channel.role == "action"]
        cuts = np.union1d(resets, changes)
        for rows in np.split(np.arange(len(time)), cuts):
            kept = rows[np.concatenate([[True], np.diff(time[rows]) != 0])]
            part = values[kept]
            self.traces.append(
                Trace(
                    "" if not len(cuts) else f", from row {tables[lead].number(int(rows[0]))}",
                    run.name,
                    time[kept],
                    part,
                    has_final=bool(actions) and bool(np.isnan(part[-1, actions]).all()),
                )
            )
        where = np.searchsorted(cuts, np.arange(len(time)), side="right")
        for faults, found in ((self._resets, resets), (self._repeats, repeats[:_MANY_REPEATS])):
            faults += [
                ClockFault(
                    base + int(where[row]), tables[lead].number(row), float(time[row - 1]), float(time[row])
                )
                for row in found.tolist()
            ]

    def _numbers(
        self, run: Run, tables: Sequence[Table], clocks: Sequence[Floats], *, lead: int
    ) -> Mapping[str, Floats]:
        columns: dict[str, Floats] = {}
        for number, (table, clock) in enumerate(zip(tables, clocks, strict=True)):
            for name, values in table.columns.items():
                if values.dtype.kind not in "fiu":
                    if values.dtype.kind == "U" and name not in {kind.time.column for kind in self._kinds}:
                        self._note_text(run.files[number], name, values)
                    continue
                numbers = values.astype(np.float64)
                numbers[~np.isfinite(numbers)] = np.nan
                if number != lead:
                    known = np.isfinite(numbers)
                    numbers = (
                        np.interp(clocks[lead], clock[known], numbers[known]) if known.any() else numbers[:0]
                    )
                if len(numbers) == tables[lead].rows:
                    columns[name] = numbers
        add_derived(columns, self._schema, tables[lead].rows)
        return columns

    def _note_text(self, file: Path, name: str, values: NDArray[Any]) -> None:
        needed = {channel.source for channel in self._channels if channel.role != "other"}
        example = str(values[0])
        if name in needed or re.search(r"\d", example):
            self._texts.setdefault(file.as_posix(), {})[name] = example

    def see_header(self, file: Path) -> None:
        """Notes the columns of a file of the folder, examined or not."""
        names = _names(file, self._schema)
        if not names:
            self.faults.setdefault(file.as_posix(), "it is no table of these columns")
            return
        self._headers.setdefault(tuple(names), []).append(file.as_posix())
        known = {trace.file for trace in self.traces}
        if file.as_posix() not in known and len(self._texts) < 20:
            try:
                table = read_table(file, self._schema.csv, [], raw=names)
            except DataError:
                return
            for name, values in table.columns.items():
                if values.dtype.kind == "U" and table.rows:
                    self._note_text(file, name, values)

    def record(self, schema: ImportSchema) -> Record:
        """All that was gathered; columns without any value are left out."""
        kept = [
            k
            for k in range(len(self._channels))
            if any(np.isfinite(trace.values[:, k]).any() for trace in self.traces)
        ]
        files = list(dict.fromkeys(trace.file for trace in self.traces))
        short = dict(zip(files, short_names(files), strict=True))
        traces = tuple(
            dataclasses.replace(trace, name=short[trace.file] + trace.name, values=trace.values[:, kept])
            for trace in self.traces
        )
        usual = float(np.median([usual_interval(trace.time) for trace in traces]))
        headers = {names: tuple(files) for names, files in self._headers.items()}
        return Record(
            schema.name,
            tuple(self._channels[k] for k in kept),
            traces,
            1.0 / schema.rate if schema.rate is not None else usual,
            is_raw=True,
            is_timed=any(kind.time.column is not None for kind in self._kinds),
            resets=tuple(self._resets),
            repeats=tuple(self._repeats),
            headers={} if schema.sources else headers,
            texts=self._texts,
            faults=self.faults,
        )
