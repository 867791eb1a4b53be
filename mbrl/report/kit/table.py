"""A table of values, and its three forms: terminal, Markdown, and (in `html`) a page."""

import dataclasses
import io
import math
import re
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from mbrl.report.kit.wording import format_number

Cell: TypeAlias = str | float | int | bool | None

_NUMBER: Final = re.compile(r"-|[<>]? ?-?[\d.,]+(e[+-]?\d+)?( %)?")

TERMINAL_WIDTH: Final = 100
"""Columns of the terminal that every table fits."""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under a caption; numbers are formatted and set to the right.

    Attributes:
        caption: what the table shows.
        columns: headings.
        rows: as many cells each as there are headings; None and NaN read "not available".

    Raises:
        ValueError: a row has another number of cells.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def is_numeric_column(self, index: int) -> bool:
        """Whether every cell of a column reads as a number; such a column is set to the right."""
        return bool(self.rows) and all(is_numeric(row[index]) for row in self.rows)

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"table {self.caption!r}: a row has another number of cells than {self.columns}")


def format_cell(value: Any) -> str:
    """A `Cell` as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, int | float):
        return format_number(None if value is None else float(value))
    return str(value)


def is_numeric(value: Any) -> bool:
    """Whether a `Cell` reads as a number, a share, or the lack of one."""
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def is_missing(value: Any) -> bool:
    """Whether a `Cell` holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_rich(table: Table) -> RenderableType:
    """For the terminal: the caption above the rows; long text is folded, nothing is cut off."""
    drawn = RichTable(box=box.SIMPLE_HEAD)
    for index, name in enumerate(table.columns):
        justify = "right" if table.is_numeric_column(index) else "left"
        drawn.add_column(name, justify=justify, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(format_cell(cell)) for cell in row))
    return Group(Text(table.caption, style="bold"), drawn)


def to_text(tables: Sequence[Table], *, width: int = TERMINAL_WIDTH) -> str:
    """Plain text of at most `width` columns."""
    text = io.StringIO()
    console = Console(file=text, width=width, color_system=None, force_terminal=False)
    for table in tables:
        console.print(to_rich(table))
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n") + "\n"


def to_markdown(table: Table) -> str:
    """A GitHub-flavoured table under its caption in bold."""
    numeric = map(table.is_numeric_column, range(len(table.columns)))
    rules = ["--:" if is_right else ":--" for is_right in numeric]
    lines = [_markdown_row(table.columns), _markdown_row(rules)]
    lines += [_markdown_row([format_cell(cell).replace("|", "\\|") for cell in row]) for row in table.rows]
    return f"**{table.caption}**\n\n" + "\n".join(lines) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
