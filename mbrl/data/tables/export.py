"""Writes named time series as files that a schema can be written for: a Parquet file for each."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mbrl.core.errors import DataError
from mbrl.data.formats.output import write_folder
from mbrl.data.formats.parquet import make_parquet
from mbrl.data.tables.time_table import TimeTable

TIME: Final = "time"
"""Column of the stamps, seconds."""

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def write_tables(tables: Sequence[TimeTable], folder: Path, *, prefix: str = "") -> tuple[Path, ...]:
    """Writes `<prefix>_<name>.parquet` for each table: the column `time`, then its own.

    Args:
        tables: what to write.
        folder: must be free.
        prefix: of every name, such as that of the run: a schema joins files by what its stars stand for.

    Raises:
        FileExistsError: `folder` holds something already.
        DataError: two tables would have one name, a column is named `time`, or the disk is full.
        MissingExtraError: pyarrow is not installed.
    """
    files: dict[str, memoryview] = {}
    for table in tables:
        stem = _NO_NAME.sub("_", table.name).strip("_") or "table"
        name = f"{prefix}_{stem}.parquet" if prefix else f"{stem}.parquet"
        if name in files:
            raise DataError(
                f"two tables would be written as {name}", field=table.name, remedy="Write one at a time."
            )
        if TIME in table.columns:
            raise DataError("a column is named time", field=table.name, remedy="Rename the column.")
        columns = {TIME: table.stamps, **{column: table.column(column) for column in table.columns}}
        files[name] = make_parquet(columns, purpose="writing tables")
    write_folder(folder, files)
    return tuple(folder / name for name in files)
