#!/usr/bin/env python
"""Runs every hostile input of `tests/hostile` through the command line and writes what came of each.

    python scripts/measure/reliability.py [--out results/reliability] [--every N]

One Markdown table for each kind of input, and a README with counts. `--every N` takes each Nth input alone,
for a look. Exit status 1 if a command ended other than it must.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.hostile import runs  # noqa: E402
from tests.hostile.tables import TABLES, Row, measure  # noqa: E402

SHOWN = 240


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes, and tells whether all went well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reliability")
    parser.add_argument("--every", type=int, default=1, help="take every Nth input")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Row]] = {}
    try:
        for kind, cases in TABLES.items():
            found[kind] = measure(cases()[:: options.every])
            (options.out / f"{kind}.md").write_text(table(kind, found[kind]))
    finally:
        runs.forget()
    (options.out / "README.md").write_text(summary(found))
    return int(not all(row.is_sound for rows in found.values() for row in rows))


def table(kind: str, rows: list[Row]) -> str:
    """Input, outcome and message, a row each."""
    lines = [f"# Hostile {kind}", "", "| input | outcome | message |", "|---|---|---|"]
    lines += [f"| {cell(row.name)} | {cell(row.outcome)} | {cell(row.message)} |" for row in rows]
    return "\n".join(lines) + "\n"


def summary(found: dict[str, list[Row]]) -> str:
    """Counts by kind, and what did not end as it must."""
    lines = [
        "# Hostile inputs",
        "",
        "Each input is one that a user may meet: damaged, untrue, or made to do harm. The command that",
        "reads it must refuse it within a minute and 6 GiB, in words that name the file and a remedy, or",
        "answer all the same where what is damaged is not needed; it may leave nothing half-written behind,",
        "and no content may run as code.",
        "",
        "Made by `python scripts/measure/reliability.py` from the tables in `tests/hostile`.",
        "",
        "| kind | inputs | refused | answered | otherwise |",
        "|---|---|---|---|---|",
    ]
    for kind, rows in found.items():
        counts = [sum(row.outcome == outcome for row in rows) for outcome in ("refused", "answered")]
        rest = sum(not row.is_sound for row in rows)
        lines.append(f"| [{kind}]({kind}.md) | {len(rows)} | {counts[0]} | {counts[1]} | {rest} |")
    bad = [row for rows in found.values() for row in rows if not row.is_sound]
    lines += ["", *(f"- {cell(row.name)}: {cell(row.outcome)}" for row in bad)]
    return "\n".join(lines).rstrip() + "\n"


def cell(text: str) -> str:
    """Text that fits into a cell of a table."""
    text = text.replace("|", "\\|")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


if __name__ == "__main__":
    sys.exit(main())
