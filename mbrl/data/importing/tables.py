"""Rows of one csv or Parquet file as columns of float64, read by pyarrow; only what is asked for."""

import csv
import dataclasses
import functools
import importlib
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.core.names import suggest
from mbrl.data.formats.limits import reading
from mbrl.data.importing.schema import ALL, CsvConfig
from mbrl.data.info import MAX_NAME

PARQUET: Final = (".parquet", ".pq")
MAX_COLUMNS: Final = 20_000
MAX_HEADER: Final = 4_000_000
"""Bytes that a header and the lines before it may have."""

_SHOWN: Final = 30
_ROW: Final = re.compile(r"Row #(\d+)")
_COLUMN: Final = re.compile(r"In CSV column #(\d+)")
_ENTRY: Final = re.compile(r"(.+)\[(\d+)\]")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Columns of a file.

    Attributes:
        file: where they were read.
        columns: arrays of equal length by name: float64; int64 for whole stamps; `datetime64[ns]`; or texts.
        rows: their length.
        first_row: line of the file that holds the first row, for messages; 0 for Parquet.
    """

    file: Path
    columns: Mapping[str, NDArray[Any]]
    rows: int
    first_row: int

    def number(self, row: int) -> int:
        """How a message calls a row: the line of a csv file, the row of a Parquet file."""
        return self.first_row + row


def is_parquet(path: Path) -> bool:
    """Whether a file is read as Parquet."""
    return path.suffix.lower() in PARQUET


def arrow() -> Any:
    """The package pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="tables", purpose="Importing csv and Parquet") from error
    return pyarrow


def column_names(path: Path, dialect: CsvConfig) -> list[str]:
    """Names of the columns of a file; entries of lists are `name[0]`, `name[1]`, ...

    Raises:
        DataError: the file is empty, no text, or no table.
    """
    with reading(path):
        return _parquet_names(path) if is_parquet(path) else _csv_names(path, dialect)


def read_table(path: Path, dialect: CsvConfig, names: Collection[str], *, raw: Collection[str] = ()) -> Table:
    """Reads some columns of a file.

    Args:
        path: csv, or Parquet by its suffix.
        dialect: of a csv file.
        names: columns of numbers, which the file has; empty cells are NaN.
        raw: columns that are kept as they are: time stamps, names of episodes.

    Raises:
        DataError: a value is no number, a row has another number of values, or the file is damaged.
    """
    with reading(path):
        if is_parquet(path):
            return _read_parquet(path, names, raw)
        return _read_csv(path, dialect, names, raw)


def unknown_column(name: str, names: Sequence[str], *, place: str, file: Path) -> DataError:
    """The error for a column that a file lacks; it names the one that was meant."""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    return DataError(
        f"there is no column {name[:80]!r}. {suggest(name, names)}Columns: {shown[:2000]}.",
        file=file,
        field=place,
        remedy="Correct the name in the schema.",
    )


def _csv_names(path: Path, dialect: CsvConfig) -> list[str]:
    head = _header_text(path, dialect)
    nothing: list[str] = []
    row = next(csv.reader(io.StringIO(head), delimiter=dialect.delimiter), nothing)
    names = [cell.strip() for cell in row] if dialect.header else [""] * len(row)
    names = [name or f"column_{index}" for index, name in enumerate(names)]
    _check_names(names, path)
    return names


def _check_names(names: Sequence[str], path: Path) -> None:
    remedy = "Correct the header, or csv.delimiter and csv.skip_rows."
    report = functools.partial(DataError, file=path, remedy=remedy)
    if len(names) > MAX_COLUMNS:
        raise report(f"{len(names):,} columns, where {MAX_COLUMNS:,} are the most")
    seen: set[str] = set()
    for name in names:
        if len(name) > MAX_NAME:
            raise report(f"a column name of {len(name):,} characters ({name[:20]!r}...)")
        if name in seen:
            raise report(f"two columns are called {name!r}")
        seen.add(name)


def _header_text(path: Path, dialect: CsvConfig) -> str:
    """The line of the header, or the first one without a header."""
    with path.open("rb") as stream:
        for _ in range(dialect.skip_rows):
            stream.readline(MAX_HEADER)
        line = stream.readline(MAX_HEADER)
    if not line.strip():
        what = "the file is empty" if path.stat().st_size == 0 else "there is no header"
        raise DataError(what, file=path, row=dialect.skip_rows + 1, remedy="Leave the file out.")
    try:
        text = line.decode(dialect.encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(
            f"it is not text in {dialect.encoding} ({str(error)[:120]})",
            file=path,
            remedy="Give csv.encoding, such as latin-1, or leave the file out.",
        ) from error
    if "\0" in text or len(line) >= MAX_HEADER:
        raise DataError("it is no csv file, but bytes", file=path, remedy="Leave the file out.")
    return text.lstrip("\ufeff")


def _read_csv(path: Path, dialect: CsvConfig, names: Collection[str], raw: Collection[str]) -> Table:
    pa = arrow()
    arrow_csv: Any = importlib.import_module("pyarrow.csv")
    header = _csv_names(path, dialect)
    skipped = dialect.skip_rows + int(dialect.header)
    wanted = [name for name in header if name in names or name in raw]
    stamps = [name for name in wanted if name in raw]
    options: dict[str, Any] = {
        "read_options": arrow_csv.ReadOptions(
            column_names=header, skip_rows=skipped, encoding=dialect.encoding, use_threads=False
        ),
        "parse_options": arrow_csv.ParseOptions(delimiter=dialect.delimiter),
    }

    def read(types: dict[str, Any]) -> Any:
        table: Any = arrow_csv.read_csv(
            path,
            convert_options=arrow_csv.ConvertOptions(
                include_columns=wanted,
                column_types=types,
                decimal_point=dialect.decimal,
                null_values=list(dialect.missing_values),
                strings_can_be_null=True,
            ),
            **options,
        )
        return table

    numbers = {name: pa.float64() for name in wanted if name not in raw}
    try:
        table = read(numbers)
    except pa.ArrowInvalid:
        try:  # a stamp that is whole in the first rows alone
            table = read({**numbers, **{name: pa.float64() for name in stamps}})
        except pa.ArrowInvalid as error:
            raise _conversion_error(str(error), path, wanted) from error
    return _to_table(path, table, wanted, skipped + 1)


def _conversion_error(text: str, path: Path, wanted: Sequence[str]) -> DataError:
    row, column = _ROW.search(text), _COLUMN.search(text)
    number = None if row is None else int(row[1])
    problem = re.sub(r"^.*(?=CSV conversion error|Expected)", "", text.replace("\n", " "))[:200]
    field = None
    if column is not None and int(column[1]) < len(wanted):
        field = wanted[int(column[1])]
    return DataError(
        f"a value is no number, or a row has too many or too few ({problem})",
        file=path,
        field=field,
        row=number,
        remedy="Correct the row, csv.delimiter, csv.decimal or csv.missing_values, or leave the file out.",
    )


def _to_table(path: Path, table: Any, wanted: Sequence[str], first_row: int) -> Table:
    columns = {name: _to_array(table.column(name), name, path) for name in wanted}
    return Table(path, columns, table.num_rows, first_row)


def _to_array(column: Any, name: str, path: Path) -> NDArray[Any]:
    pa = arrow()
    kind, types = column.type, pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        return np.asarray(column.cast(pa.timestamp("ns")).to_numpy()).astype("datetime64[ns]")
    if types.is_integer(kind) and column.null_count == 0:
        return np.asarray(column.to_numpy()).astype(np.int64 if types.is_signed_integer(kind) else np.uint64)
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    if types.is_string(kind) or types.is_large_string(kind):
        return np.asarray(column.to_pylist(), dtype=np.str_)
    raise DataError(
        f"values of type {kind}", file=path, field=name, remedy="Store numbers, or leave the column out."
    )


def _parquet_names(path: Path) -> list[str]:
    pa = arrow()
    table = _open_parquet(path)
    names: list[str] = []
    for field in table.schema_arrow:
        if pa.types.is_fixed_size_list(field.type):
            names += [f"{field.name}[{k}]" for k in range(min(field.type.list_size, MAX_COLUMNS))]
        elif pa.types.is_list(field.type) and table.metadata.num_rows:
            first = next(table.iter_batches(1, columns=[field.name])).column(0)[0].as_py()
            names += [f"{field.name}[{k}]" for k in range(min(len(first or []), MAX_COLUMNS))]
        else:
            names.append(field.name)
    _check_names(names, path)
    return names


def _open_parquet(path: Path) -> Any:
    arrow()
    parquet: Any = importlib.import_module("pyarrow.parquet")
    return parquet.ParquetFile(path)


def _read_parquet(path: Path, names: Collection[str], raw: Collection[str]) -> Table:
    file = _open_parquet(path)
    entries = {name: _ENTRY.fullmatch(name) for name in (*names, *raw)}
    present = set(file.schema_arrow.names)
    roots = {name: name if name in present or e is None else e[1] for name, e in entries.items()}
    table = file.read(columns=sorted(set(roots.values())))
    lists: dict[str, NDArray[Any]] = {}
    columns: dict[str, NDArray[Any]] = {}
    for name, root in roots.items():
        entry = entries[name]
        if root == name or entry is None:
            values = _to_array(table.column(root), name, path)
            columns[name] = (
                values if name in raw or values.dtype.kind not in "iu" else values.astype(np.float64)
            )
            continue
        if root not in lists:
            lists[root] = _to_matrix(table.column(root), root, path)
        columns[name] = lists[root][:, int(entry[2])]
    return Table(path, columns, table.num_rows, 0)


def _to_matrix(column: Any, name: str, path: Path) -> NDArray[Any]:
    """`[rows, k]` of a column of lists of k numbers."""
    pa = arrow()
    lengths = {len(value) if value is not None else -1 for value in column.to_pylist()[:1]}
    flat = pa.chunked_array([chunk.flatten() for chunk in column.chunks]) if column.num_chunks else column
    width = next(iter(lengths), 0)
    if width < 1 or len(flat) != width * len(column) or column.null_count:
        raise DataError(
            "its lists are of different lengths", file=path, field=name, remedy="Leave the column out."
        )
    return np.asarray(flat.cast(pa.float64()).to_numpy()).reshape(len(column), width)


def expand(name: str, names: Sequence[str]) -> list[str]:
    """The columns that a name with `[*]` stands for; itself without."""
    if not name.endswith(ALL):
        return [name]
    root = name.removesuffix(ALL)
    return [other for other in names if (entry := _ENTRY.fullmatch(other)) is not None and entry[1] == root]
