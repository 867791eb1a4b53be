"""Typed access to the columns of Parquet and Arrow files that hold datasets. Not a format of its own.

A column is an array `[rows, ...]`, whatever lists Arrow nests it in. Only numbers are read: nothing is
unpickled, no extension type is built, and what claims more memory than the size of the file makes credible is
refused.
"""

import importlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.data.formats.limits import ReadBudget, reading
from mbrl.data.raw import AnyArray

PARQUET_SIGNATURE: Final = b"PAR1"
ARROW_SIGNATURE: Final = b"ARROW1"

_NUMBER_BYTES: Final = 8
_MAX_DEPTH: Final = 4


def is_columnar(path: Path) -> bool:
    """Whether `path` is a file that starts as Parquet or Arrow files do."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(ARROW_SIGNATURE)).startswith((PARQUET_SIGNATURE, ARROW_SIGNATURE))


class StoredTable:
    """Columns of a file, read one by one.

    Args:
        table: of pyarrow.
        file: for messages.
    """

    def __init__(self, table: Any, file: Path) -> None:
        self._table, self._file = table, file

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def names(self) -> tuple[str, ...]:
        """Names of the columns, in the order of the file."""
        return tuple(cast("list[str]", self._table.column_names))

    def require(self, name: str) -> AnyArray:
        """The numbers of a column, `[rows, ...]`.

        Raises:
            DataError: the column is missing, or holds something else than equally many numbers per row.
        """
        leaves = self.leaves(name)
        if len(leaves) != 1 or "" not in leaves:
            raise self._error(name, "named parts, where numbers are needed", "Store a list of numbers.")
        return leaves[""]

    def leaves(self, name: str) -> dict[str, AnyArray]:
        """The numbers of a column by the path within it: `""` for a plain one, `a/b` for parts of parts.

        Raises:
            DataError: see `require`.
        """
        if name not in self.names():
            present = ", ".join(self.names()[:20]) or "nothing"
            raise self._error(name, f"the column is missing; present: {present}", "Check the file.")
        column = self._table.column(name).combine_chunks()
        chunks: list[Any] = list(column.chunks) if hasattr(column, "chunks") else [column]
        if not chunks:
            return {"": np.zeros(0)}
        found = [self._collect(chunk, name, "") for chunk in chunks]
        return {path: np.concatenate([part[path] for part in found]) for path in found[0]}

    def _collect(self, array: Any, name: str, path: str) -> Mapping[str, AnyArray]:
        if not _types().is_struct(array.type):
            return {path: self._numbers(array, name, 0)}
        found: dict[str, AnyArray] = {}
        for index in range(int(array.type.num_fields)):
            part = str(array.type.field(index).name)
            below = f"{path}/{part}" if path else part
            if below.count("/") > _MAX_DEPTH:
                raise self._error(name, f"parts of parts, {_MAX_DEPTH} deep", "Flatten the column.")
            found |= self._collect(array.field(index), name, below)
        return found

    def _numbers(self, array: Any, name: str, depth: int) -> AnyArray:
        types, kind, rows = _types(), array.type, len(array)
        if int(array.null_count):
            row = next((index for index in range(rows) if not array[index].is_valid), 0)
            raise self._error(
                name, "the entry is empty (null)", "Leave the rows without numbers out.", row=row
            )
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            return np.asarray(array.to_numpy(zero_copy_only=False))
        is_list: bool = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if not is_list or depth >= _MAX_DEPTH:
            raise self._error(name, f"{str(kind)[:60]}, where numbers are needed", "Store numbers.")
        below = self._numbers(array.flatten(), name, depth + 1)
        if rows == 0:
            return below.reshape(0, 1)
        if types.is_fixed_size_list(kind):
            size = int(kind.list_size)
        else:
            sizes = np.diff(np.asarray(array.offsets.to_numpy(zero_copy_only=False)))
            size = int(sizes[0])
            if bool((sizes != size).any()):
                row = int((sizes != size).argmax())
                text = f"{int(sizes[row])} numbers in a row, where the first has {size}"
                raise self._error(name, text, "Store equally many numbers in every row.", row=row)
        if len(below) != rows * size or size == 0:
            raise self._error(name, f"{len(below)} numbers in {rows} rows", "Write the file again.")
        return below.reshape(rows, size, *below.shape[1:])

    def _error(self, field: str, problem: str, remedy: str, *, row: int | None = None) -> DataError:
        return DataError(problem, file=self._file, field=field, row=row, remedy=remedy)


def read_columns(file: Path, columns: Collection[str] | None = None, *, purpose: str) -> StoredTable:
    """Reads a Parquet or Arrow file.

    Args:
        file: the file.
        columns: those that are wanted; names that it lacks are passed over. None takes all.
        purpose: what the library is needed for.

    Raises:
        DataError: the file is truncated or damaged, or claims too much memory.
        MissingExtraError: pyarrow is not installed.
    """
    parquet, ipc = _module("pyarrow.parquet", purpose), _module("pyarrow.ipc", purpose)
    with reading(file), file.open("rb") as stream:
        start = stream.read(len(ARROW_SIGNATURE))
        stream.seek(0)
        if start.startswith(PARQUET_SIGNATURE):
            table: Any = _read_parquet(parquet.ParquetFile(stream), columns, ReadBudget(file))
        elif start == ARROW_SIGNATURE:
            table = ipc.open_file(stream).read_all()
            wanted = [str(name) for name in table.column_names if columns is None or name in columns]
            table = table.select(wanted)
        else:
            raise DataError(
                "it starts as neither Parquet nor Arrow files do",
                file=file,
                remedy="Copy the file again; a file of Git LFS that was not fetched holds a pointer.",
            )
        table.validate(full=True)  # offsets of a damaged file may lead anywhere
        return StoredTable(table, file)


def _module(name: str, purpose: str) -> Any:
    """A module of pyarrow, which carries no types.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="tables", purpose=purpose) from error


def _types() -> Any:
    return _module("pyarrow.types", "reading columns")


def _read_parquet(content: Any, columns: Collection[str] | None, budget: ReadBudget) -> Any:
    """Counts what the file claims before it is read."""
    metadata = content.metadata
    claimed: dict[str, int] = {}
    for group in range(int(metadata.num_row_groups)):
        for index in range(int(metadata.num_columns)):
            chunk = metadata.row_group(group).column(index)
            name = str(chunk.path_in_schema).partition(".list.")[0]
            claimed[name] = claimed.get(name, 0) + _NUMBER_BYTES * max(int(chunk.num_values), 0)
    present = [str(name) for name in content.schema_arrow.names]
    wanted = [name for name in present if columns is None or name in columns]
    for name, size in claimed.items():
        if any(name == column or name.startswith(f"{column}.") for column in wanted):
            budget.take(size, field=name)
    return content.read(columns=wanted, use_threads=False)


def make_parquet(columns: Mapping[str, AnyArray], *, purpose: str) -> memoryview:
    """The bytes of a new Parquet file.

    Args:
        columns: `[rows]` arrays by name, equally long.
        purpose: what the library is needed for.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow, parquet = _module("pyarrow", purpose), _module("pyarrow.parquet", purpose)
    stream: Any = arrow.BufferOutputStream()
    parquet.write_table(arrow.table({name: arrow.array(values) for name, values in columns.items()}), stream)
    return memoryview(stream.getvalue().to_pybytes())
