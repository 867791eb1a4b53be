"""Returns that candidates were seen to reach on the machine, from a CSV file."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mbrl.core.errors import ConfigError, DataError

COLUMNS: Final = ("candidate", "return")


def read_tested(path: Path, candidates: Sequence[str]) -> dict[str, list[float]]:
    """Returns by candidate.

    Args:
        path: a CSV file with a row for each episode: `candidate`, its name in the report, and `return`, its
            discounted return over the steps that count.
        candidates: names that there are.

    Raises:
        ConfigError: there is but one candidate, and nothing to choose between.
        DataError: the file, a column, a name or a number is wrong.
    """
    if len(candidates) < 2:
        raise ConfigError("Tested returns tell which of several candidates to test next. Remedy: name more.")
    found: dict[str, list[float]] = {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"it cannot be read ({error})", file=path, remedy="Name a CSV file.") from error
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            "the column is missing",
            file=path, field=missing[0], remedy=f"Begin with the line {','.join(COLUMNS)}.",
        )  # fmt: skip
    for row, entry in enumerate(reader):
        name = (entry["candidate"] or "").strip()
        if name not in candidates:
            raise DataError(
                f"there is no candidate {name!r}",
                file=path, field="candidate", row=row, remedy=f"Name one of: {', '.join(candidates)}.",
            )  # fmt: skip
        try:
            value = float(entry["return"] or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(
                f"{entry['return']!r} is no finite number",
                file=path, field="return", row=row, remedy="Write the discounted return of the episode.",
            )  # fmt: skip
        found.setdefault(name, []).append(value)
    return found
