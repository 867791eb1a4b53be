"""How a csv file is written: delimiter, decimal point, header, encoding: what makes most numbers of it."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mbrl.core.errors import DataError
from mbrl.data.importing.schema import CsvConfig
from mbrl.data.importing.tables import MAX_HEADER

_LINES: Final = 200
_WRITINGS: Final = ((",", "."), (";", ","), (";", "."), ("\t", "."), ("\t", ","), ("|", "."), (" ", "."))
_NUMBER: Final = {
    point: re.compile(rf"\s*\"?[-+]?(\d+({re.escape(point)}\d*)?|{re.escape(point)}\d+)([eE][-+]?\d+)?\"?\s*")
    for point in (".", ",")
}


def guess_dialect(path: Path) -> CsvConfig:
    """The way of writing under which most cells of the first lines are numbers.

    Raises:
        DataError: no way makes a table of numbers of it.
    """
    lines, encoding = _first_lines(path)
    scored = [(*_score(lines, delimiter, point), delimiter, point) for delimiter, point in _WRITINGS]
    share, columns, delimiter, point = max(scored, key=lambda found: (round(found[0], 2), found[1]))
    if columns < 2 or share < 0.3:
        raise DataError(
            "its first lines are no table of numbers under any usual delimiter",
            file=path,
            remedy="Name csv or Parquet files with one row for each sample, or write the schema by hand.",
        )
    cells = [line.split(delimiter) for line in lines]
    skip = next(index for index, row in enumerate(cells) if len(row) == columns)
    header = not all(_NUMBER[point].fullmatch(cell) for cell in cells[skip] if cell.strip())
    decimal = "," if point == "," else "."
    return CsvConfig(delimiter=delimiter, decimal=decimal, encoding=encoding, skip_rows=skip, header=header)


def _first_lines(path: Path) -> tuple[list[str], str]:
    with path.open("rb") as stream:
        lines = list(itertools.islice(iter(lambda: stream.readline(MAX_HEADER), b""), _LINES))
    if not lines:
        raise DataError("the file is empty", file=path, remedy="Leave the file out.")
    block = b"".join(lines)
    if b"\0" in block:
        raise DataError("it is no csv file, but bytes", file=path, remedy="Leave the file out.")
    for encoding in ("utf-8", "latin-1"):
        try:
            text = block.decode(encoding)
        except UnicodeDecodeError:
            continue
        found = [line.rstrip("\r") for line in text.lstrip("\ufeff").split("\n")]
        found = [line for line in found if line.strip()]
        if not found:
            raise DataError("there are no lines", file=path, remedy="Leave the file out.")
        return found, encoding
    raise AssertionError("latin-1 decodes everything")


def _score(lines: Sequence[str], delimiter: str, point: str) -> tuple[float, int]:
    """Share of cells that are numbers, and the columns, of the lines with the most common number of cells."""
    rows = [line.split(delimiter) for line in lines]
    columns, _ = Counter(len(row) for row in rows).most_common(1)[0]
    regular = [row for row in rows if len(row) == columns]
    cells = [cell for row in regular[1:] or regular for cell in row]
    share = sum(_NUMBER[point].fullmatch(cell) is not None for cell in cells) / max(len(cells), 1)
    return share * len(regular) / len(rows), columns
