"""Files of answers and labels: JSON lines or Parquet, one a row, all about one log."""

import hashlib
import importlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias, TypeVar, cast

from pydantic import BaseModel, Field, ValidationError

from mbrl.core.errors import DataError, MissingExtraError
from mbrl.data.formats.limits import reading
from mbrl.data.formats.output import write_file

SUFFIXES: Final = (".jsonl", ".parquet")

MAX_BYTES: Final = 2**30
"""Largest file that is read; a million answers take a quarter of it."""

ROW_REMEDY: Final = "Write the row as docs/preferences.md describes it."

Index: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
Length: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
LogHash: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{8,128}$")]
Name: TypeAlias = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Time: TypeAlias = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]

_Form = TypeVar("_Form", bound=BaseModel)


def read_rows(file: Path, *, missing: str) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their numbers, from 1 as the lines of an editor; at least one.

    Args:
        file: ends in `.jsonl` or `.parquet`.
        missing: what to do about a file without rows.

    Raises:
        DataError: it is absent, damaged or too large, or holds nothing.
        MissingExtraError: pyarrow is not installed.
    """
    require_suffix(file)
    if not file.is_file():
        raise DataError("there is no such file", file=file, remedy="Check the path.")
    if file.stat().st_size > MAX_BYTES:
        raise DataError(
            f"it has {file.stat().st_size:,} bytes, where {MAX_BYTES:,} are the most",
            file=file,
            remedy="Split the file.",
        )
    is_empty = True
    for row in _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file):
        is_empty = False
        yield row
    if is_empty:
        raise DataError("it holds no rows", file=file, remedy=missing)


def write_rows(path: Path, rows: Sequence[BaseModel], form: type[BaseModel]) -> Path:
    """Writes a file; it appears whole or not at all.

    Args:
        path: ends in `.jsonl` or `.parquet`; must be free.
        rows: of one form.
        form: of the rows; its fields are the columns.

    Raises:
        DataError: the suffix is another, or the file cannot be written.
        FileExistsError: something is there.
        MissingExtraError: pyarrow is not installed.
    """
    require_suffix(path)
    values = [row.model_dump() for row in rows]
    if path.suffix == ".jsonl":
        return write_file(path, "".join(json.dumps(row) + "\n" for row in values).encode())
    arrow, parquet = _module("pyarrow"), _module("pyarrow.parquet")
    stream: Any = arrow.BufferOutputStream()
    types = {"integer": arrow.int64(), "string": arrow.string(), "number": arrow.float64()}
    schema = arrow.schema([(name, types[kind]) for name, kind in _kinds(form).items()])
    parquet.write_table(arrow.Table.from_pylist(values, schema=schema), stream)
    return write_file(path, memoryview(stream.getvalue().to_pybytes()))


def rows_digest(rows: Sequence[BaseModel]) -> str:
    """Hex digest (blake2b, 16 bytes) of rows, whatever file they stand in."""
    text = json.dumps([row.model_dump() for row in rows], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _kinds(form: type[BaseModel]) -> dict[str, str]:
    """What a column holds, in the words of JSON Schema: `integer`, `string` or `number`."""
    found: dict[str, str] = {}
    for name, field in form.model_json_schema()["properties"].items():
        (kind,) = {part["type"] for part in field.get("anyOf", [field])} - {"null"}
        found[name] = kind
    return found


def require_suffix(file: Path) -> None:
    """Refuses a file of another kind.

    Raises:
        DataError: it is.
    """
    if file.suffix not in SUFFIXES:
        raise DataError(
            f"{file.suffix or 'no suffix'} is no file of answers or labels",
            file=file,
            remedy=f"Name a file that ends in {' or '.join(SUFFIXES)}.",
        )


def require_one_log(found: str, first: str, *, file: Path, row: int) -> None:
    """Refuses a row about another log than that of the first row.

    Raises:
        DataError: it is.
    """
    if found != first:
        raise DataError(
            f"{found[:16]}... is another log than that of the first row ({first[:16]}...)",
            file=file,
            row=row,
            field="dataset",
            remedy="Keep one file for each log.",
        )


def parse_row(form: type[_Form], values: Any, *, file: Path, row: int) -> _Form:
    """The values of a row as the form says that they are.

    Raises:
        DataError: they are not.
    """
    try:
        # As JSON, where a list may be a tuple although types are strict.
        return form.model_validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or None
        is_missing = first["type"] == "missing"
        problem = "the entry is missing" if is_missing else f"{str(first['input'])[:60]!r}: {first['msg']}"
        raise DataError(problem, file=file, row=row, field=field, remedy=ROW_REMEDY) from error


def _json_rows(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = file.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"it cannot be read ({error})", file=file, remedy="Give JSON in UTF-8.") from error
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"the line is not JSON ({str(error)[:100]})",
                file=file,
                row=number,
                remedy="Mend or delete the line; the others are independent of it.",
            ) from error


def _parquet_rows(file: Path) -> Iterator[tuple[int, Any]]:
    parquet = _module("pyarrow.parquet")
    with reading(file):
        table: Any = parquet.read_table(file, use_threads=False)
        rows = cast("Sequence[Mapping[str, Any]]", table.to_pylist())
    for number, row in enumerate(rows, start=1):
        # A column that some rows leave empty is null in those, where JSON leaves it out.
        yield number, {name: value for name, value in row.items() if value is not None}


def _module(name: str) -> Any:
    """A module of pyarrow, which carries no types."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="tables", purpose="a preference file in Parquet") from error
