"""Which unknown files are of one kind, and their first rows."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.data.importing.guess.columns import find_clock
from mbrl.data.importing.guess.dialect import guess_dialect
from mbrl.data.importing.schema import CsvConfig
from mbrl.data.importing.tables import PARQUET, Table, column_names, is_parquet, read_table

TABLES: Final = (".csv", ".tsv", *PARQUET)
"""Ends of names that are those of tables."""

MAYBE_TABLES: Final = (*TABLES, ".txt", ".dat")
"""Ends of names that may be those of tables."""

_MOST_FILES: Final = 20
"""Files of a kind that are looked into."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class SeenKind:
    """Files with the same columns and the same name but for its numbers.

    Attributes:
        pattern: that their paths end with; stars stand for numbers.
        stem: their name without numbers.
        dialect: how they are written.
        files: all of them.
        tables: the content of the first ones.
        clock: their column of time.
    """

    pattern: str
    stem: str
    dialect: CsvConfig
    files: tuple[Path, ...]
    tables: tuple[Table, ...]
    clock: str

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """All columns but the clock, the first files one after the other."""
        names = [name for name in self.tables[0].columns if name != self.clock]
        return {name: np.concatenate([table.columns[name] for table in self.tables]) for name in names}

    @property
    def stamps(self) -> list[NDArray[Any]]:
        """The clock of each of the first files."""
        return [table.columns[self.clock] for table in self.tables]


def find_files(paths: Sequence[Path]) -> list[Path]:
    """Files by name; of a folder those that may be tables, sorted by their path.

    Raises:
        DataError: nothing is there.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = [f for f in sorted(path.rglob("*")) if f.is_file() and f.suffix.lower() in MAYBE_TABLES]
            files.update(dict.fromkeys(inside))
        elif path.is_file():
            files[path] = None
        else:
            raise DataError("there is no such file", file=path, remedy="Correct the path.")
    if not files:
        wanted = ", ".join(MAYBE_TABLES)
        raise DataError(f"no file ends with {wanted}", file=paths[0] if paths else None, remedy="Name files.")
    return list(files)


def see_kinds(files: Sequence[Path]) -> tuple[list[SeenKind], list[Path]]:
    """The kinds of files that make up the log, and the files that are of no kind.

    Files with the same columns are of one kind. Where they hold one signal each, or where every run has one
    file of each of several kinds, the kinds are joined by time; else the most common kind alone is taken.

    Raises:
        DataError: a file is no table, or has no column that looks like time.
    """
    groups: dict[tuple[tuple[str, ...], str], list[Path]] = {}
    dialects: dict[Path, CsvConfig] = {}
    for file in files:
        dialects[file] = CsvConfig() if is_parquet(file) else guess_dialect(file)
        header = tuple(column_names(file, dialects[file]))
        groups.setdefault((header, _stem(file)), []).append(file)
    by_header: dict[tuple[str, ...], list[Path]] = {}
    for (header, _), members in groups.items():
        by_header.setdefault(header, []).extend(members)
    if len(groups) > 1 and _are_parts(list(groups.items())):
        return [_see(members, dialects[members[0]], alone=False) for members in groups.values()], []
    chosen = max(by_header.values(), key=len)
    left = [file for file in files if file not in chosen]
    return [_see(chosen, dialects[chosen[0]], alone=True)], left


def _are_parts(groups: Sequence[tuple[tuple[tuple[str, ...], str], list[Path]]]) -> bool:
    """Whether every run has one file of each group, and no two groups have a signal of the same column name.

    Groups with the same columns are parts where these are a clock and a single signal.
    """
    runs = [{(file.parent, tuple(re.findall(r"\d+", file.stem))) for file in files} for _, files in groups]
    if any(run != runs[0] for run in runs) or any(
        len(run) != len(g[1]) for run, g in zip(runs, groups, strict=True)
    ):
        return False
    headers = [header for (header, _), _ in groups]
    seen: set[str] = set()
    for header in headers:
        signals = set(header[1:])
        if len(header) > 2 and signals & seen:
            return False
        seen |= signals
    return True


def _see(files: Sequence[Path], dialect: CsvConfig, *, alone: bool) -> SeenKind:
    tables = [_load(file, dialect) for file in files[:_MOST_FILES]]
    clock = find_clock(tables[0].columns)
    if clock is None:
        raise DataError(
            f"none of its columns rises like time: {', '.join(tables[0].columns)[:500]}",
            file=files[0],
            remedy="Add a column of time stamps, or write the schema by hand with time: {step: SECONDS}.",
        )
    stems = {_stem(file) for file in files}
    suffix = files[0].suffix
    pattern = f"*{suffix}" if alone and len(stems) > 1 else re.sub(r"\d+", "*", files[0].stem) + suffix
    return SeenKind(pattern, _stem(files[0]), dialect, tuple(files), tuple(tables), clock)


def _load(file: Path, dialect: CsvConfig) -> Table:
    names = column_names(file, dialect)
    table = read_table(file, dialect, [], raw=names)
    if table.rows < 3:
        raise DataError("fewer than three rows", file=file, remedy="Leave the file out.")
    return table


def _stem(file: Path) -> str:
    return re.sub(r"\d+", "", file.stem).strip("_-. ") or "log"
