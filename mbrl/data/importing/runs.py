"""Files to runs: which files belong together, and what each of their columns is against time."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.expressions.parse import parse_expression
from mbrl.data.importing.clock import cut_at_restarts, read_clocks
from mbrl.data.importing.schema import CsvConfig, ImportSchema, SourceConfig, TimeConfig
from mbrl.data.importing.signals import Floats, Signal, usual_interval
from mbrl.data.importing.tables import Table, column_names, read_table, unknown_column
from mbrl.data.importing.vocabulary import code_choices

_WILDCARDS: Final = {"**": "(.*)", "*": "([^/]*)", "?": "([^/])"}


@dataclasses.dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of files of a schema: the whole of it, where there is a single one.

    Attributes:
        pattern: that the end of their path matches.
        time: their clock.
        csv: their way of writing.
        columns: new names by old ones.
    """

    pattern: str
    time: TimeConfig
    csv: CsvConfig
    columns: Mapping[str, str]

    @classmethod
    def of(cls, schema: ImportSchema) -> "tuple[FileKind, ...]":
        """The kinds of a schema."""
        sources = schema.sources or (SourceConfig(files=schema.files),)
        return tuple(
            cls(
                source.files,
                source.time or schema.time,
                source.csv or schema.csv,
                {old: new for new, old in source.columns.items()},
            )
            for source in sources
        )

    def names(self, file: Path) -> list[str]:
        """Columns of a file, under their new names.

        Raises:
            DataError: the file lacks a column that is to be renamed.
        """
        names = column_names(file, self.csv)
        for old in self.columns:
            if old not in names:
                raise unknown_column(old, names, place=f"sources {self.pattern}: columns", file=file)
        return [self.columns.get(name, name) for name in names]


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """Files that were logged together: one of each kind.

    Attributes:
        files: in the order of the kinds.
    """

    files: tuple[Path, ...]

    def columns(self, kinds: Sequence[FileKind]) -> list[str]:
        """Columns of all files, under their new names.

        Raises:
            DataError: see `FileKind.names`.
        """
        return [name for kind, file in zip(kinds, self.files, strict=True) for name in kind.names(file)]

    @property
    def name(self) -> str:
        """How messages call it."""
        return self.files[0].as_posix()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """What was logged between two restarts of the clock.

    Attributes:
        signals: columns of numbers against time.
        clock: `[n]` time of the rows of the first kind of files.
        labels: of those rows, the column that tells episodes apart; None without one.
    """

    signals: Mapping[str, Signal]
    clock: Floats
    labels: NDArray[Any] | None


def list_files(paths: Iterable[Path], schema: ImportSchema) -> list[Path]:
    """Files by name; of a folder those that match the schema, sorted by their path.

    Raises:
        DataError: nothing is there.
    """
    patterns = [_regex(kind.pattern) for kind in FileKind.of(schema)]
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = (entry for entry in sorted(path.rglob("*")) if entry.is_file())
            found = [entry for entry in inside if any(p.fullmatch(entry.as_posix()) for p in patterns)]
            if not found:
                wanted = ", ".join(kind.pattern for kind in FileKind.of(schema))
                raise DataError(
                    f"no file in it matches {wanted}", file=path, remedy="Correct files in the schema."
                )
            files.update(dict.fromkeys(found))
        elif path.is_file():
            files[path] = None
        else:
            raise DataError("there is no such file", file=path, remedy="Correct the path.")
    if not files:
        raise DataError("no files were given", remedy="Name files or folders after the schema.")
    return list(files)


def group_files(files: Sequence[Path], schema: ImportSchema) -> list[Run]:
    """The runs that files make up.

    Raises:
        DataError: a file is of no kind of the schema, or lacks the files that belong to it.
    """
    if not schema.sources:
        return [Run((file,)) for file in files]
    kinds = FileKind.of(schema)
    patterns = [_regex(kind.pattern) for kind in kinds]
    groups: dict[tuple[str, ...], dict[int, Path]] = {}
    for file in files:
        matches = [(index, m) for index, p in enumerate(patterns) if (m := p.fullmatch(file.as_posix()))]
        if len(matches) != 1:
            raise DataError(
                f"it matches {len(matches)} of the sources ({', '.join(kind.pattern for kind in kinds)})",
                file=file,
                remedy="Give every source a pattern of its own, and name files of these alone.",
            )
        index, match = matches[0]
        group = groups.setdefault(tuple(part or "" for part in match.groups()), {})
        if index in group:
            raise DataError(f"{group[index]} is the same part of the same run", file=file, remedy="Name one.")
        group[index] = file
    for group in groups.values():
        for index, kind in enumerate(kinds):
            if index not in group:
                raise DataError(
                    f"the run lacks its file {kind.pattern}",
                    file=next(iter(group.values())),
                    remedy="Name it too, or leave the whole run out.",
                )
    return [Run(tuple(group[index] for index in range(len(kinds)))) for group in groups.values()]


def read_pieces(
    run: Run, schema: ImportSchema, wanted: Sequence[tuple[str, str]], counts: Counter[str]
) -> Iterator[Piece]:
    """Yields what the files of a run hold, in order of time.

    Args:
        run: the files.
        schema: how to read them.
        wanted: columns to be read, each with the place in the schema that names it.
        counts: told of rows and of what was left out.

    Raises:
        DataError: a column is missing or in two files, a value is none, or time does not ascend.
    """
    kinds = FileKind.of(schema)
    tables = _read_tables(run, kinds, schema, wanted)
    counts["rows read"] += sum(table.rows for table in tables)
    clocks = read_clocks(tables, [kind.time for kind in kinds])
    cuts = [
        cut_at_restarts(table, time, kind.time, counts)
        for table, time, kind in zip(tables, clocks, kinds, strict=True)
    ]
    if len(tables) > 1 and any(len(cut) > 1 for cut in cuts):
        raise DataError(
            "its clock restarts, and files that are joined by time have no order then",
            file=run.files[0],
            remedy="Cut the files where the clocks restart.",
        )
    for part in range(len(cuts[0])):
        signals: dict[str, Signal] = {}
        for table, time, cut in zip(tables, clocks, cuts, strict=True):
            signals |= _signals(table, time, cut[part], schema, counts)
        absent = next((name for name in schema.columns if name not in signals), None)
        if absent is not None:
            raise DataError(
                "its parts are in different files, or computed below it",
                file=run.files[0],
                field=f"columns.{absent}",
                remedy="Compute it in the channel itself (expression), or in the order of its parts.",
            )
        rows = cuts[0][part]
        labels = None
        if schema.episodes.column is not None:
            labels = tables[0].columns[schema.episodes.column][rows]
        yield Piece(signals, clocks[0][rows], labels)


def _read_tables(
    run: Run, kinds: Sequence[FileKind], schema: ImportSchema, wanted: Sequence[tuple[str, str]]
) -> list[Table]:
    names = [kind.names(file) for kind, file in zip(kinds, run.files, strict=True)]
    for place, name in wanted:
        homes = [file for file, known in zip(run.files, names, strict=True) if name in known]
        if not homes and name not in schema.columns:
            every = [known for part in names for known in part]
            raise unknown_column(name, [*every, *schema.columns], place=place, file=run.files[0])
        if len(homes) > 1:
            raise DataError(
                f"it is in {homes[1]} too", file=homes[0], field=name, remedy="Rename one in sources.columns."
            )
    label = schema.episodes.column
    if label is not None and label not in names[0]:
        raise unknown_column(label, names[0], place="episodes.column", file=run.files[0])
    tables: list[Table] = []
    for kind, file, known in zip(kinds, run.files, names, strict=True):
        old = {new: before for before, new in kind.columns.items()}
        stamps = kind.time.column
        if stamps is not None and stamps not in column_names(file, kind.csv):
            raise unknown_column(stamps, column_names(file, kind.csv), place="time.column", file=file)
        numbers = {old.get(name, name) for _, name in wanted if name in known and name != label}
        raw = {name for name in (stamps, label) if name is not None and (name in known or name == stamps)}
        coded = _choice_columns(schema, known, old)
        raw |= set(coded)
        table = read_table(file, kind.csv, numbers - raw, raw=raw)
        if table.rows < 1:
            raise DataError("there are no rows", file=file, remedy="Leave the file out.")
        read = dict(table.columns)
        for name, vocabulary in coded.items():
            read[name] = code_choices(read[name], vocabulary, file=file, column=name, number=table.number)
        columns = {kind.columns.get(name, name) if name != stamps else name: v for name, v in read.items()}
        tables.append(dataclasses.replace(table, columns=columns))
    return tables


def _choice_columns(
    schema: ImportSchema, known: Sequence[str], old: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Vocabularies of the columns of choices that a file has, by their names in it."""
    found: dict[str, tuple[str, ...]] = {}
    for channel in schema.actions:
        names = channel.vocabulary
        if names is not None and channel.column is not None and channel.column in known:
            found[old.get(channel.column, channel.column)] = names
    return found


def _signals(
    table: Table, time: Floats, rows: NDArray[np.int64], schema: ImportSchema, counts: Counter[str]
) -> dict[str, Signal]:
    """The columns of a file, and the derived ones that it has all parts of."""
    columns = {
        name: values[rows].astype(np.float64)
        for name, values in table.columns.items()
        if values.dtype.kind in "fiu"
    }
    add_derived(columns, schema, len(rows))
    signals: dict[str, Signal] = {}
    shared = time[rows]
    interval = usual_interval(shared)
    for name, values in columns.items():
        is_missing = np.isnan(values)
        if bool(np.isinf(values).any()) or (schema.missing == "error" and bool(is_missing.any())):
            row = int((~np.isfinite(values)).argmax())
            raise DataError(
                f"the value {values[row]} is none ({int((~np.isfinite(values)).sum())} such rows)",
                file=table.file,
                field=name,
                row=table.number(int(rows[row])),
                remedy="Repair the rows; or set missing: skip to read the column from its other rows.",
            )
        if bool(is_missing.all()):
            raise DataError("it has no values", file=table.file, field=name, remedy="Leave the column out.")
        counts["cells without a value"] += int(is_missing.sum())
        if bool(is_missing.any()):
            own = shared[~is_missing]
            signals[name] = Signal(own, values[~is_missing], usual_interval(own))
        else:
            signals[name] = Signal(shared, values, interval)
    return signals


def add_derived(columns: dict[str, Floats], schema: ImportSchema, rows: int) -> None:
    """Adds the derived columns of a schema that all parts are there of, `[rows]`; in place."""
    for name, text in schema.columns.items():
        expression = parse_expression(text)
        if all(inner in columns for inner in expression.names):
            columns[name] = expression.evaluate(columns, rows)


def _regex(pattern: str) -> re.Pattern[str]:
    """Matches a whole path whose end the pattern describes; groups are what the stars stand for."""
    parts = re.split(r"(\*\*|\*|\?)", pattern)
    return re.compile("(.*/)?" + "".join(_WILDCARDS.get(part) or re.escape(part) for part in parts))
