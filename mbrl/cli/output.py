"""What the command prints: tables or JSON to stdout."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

if TYPE_CHECKING:
    from mbrl.api.result import Result

WIDTH: Final = 100


def stdout() -> Console:
    """Console of results, never wider than 100 columns."""
    console = Console(highlight=False)
    return Console(highlight=False, width=min(WIDTH, console.width) if console.is_terminal else WIDTH)


def emit(result: "Result", *, is_json: bool, path: Path | None = None) -> None:
    """Prints a result.

    Args:
        result: stdout is exactly its `to_dict` as one JSON object with `is_json`, else its opening, its
            tables and its messages.
        is_json: which of the two.
        path: what the command wrote; the last line for people.
    """
    from mbrl.report.kit.table import to_rich

    if is_json:
        sys.stdout.write(json.dumps(result.to_dict()) + "\n")
        return
    console = stdout()
    for sentence in result.opening():
        console.print(sentence, markup=False)
    for table in result.tables():
        console.print(to_rich(table))
    for message in result.messages():
        console.print(message, markup=False)
    if path is not None:
        console.print(f"Wrote {path}", soft_wrap=True)
